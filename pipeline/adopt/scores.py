"""How much of the label one column alone tells, measured on rows that it has not seen.

A column is cut into bins (a number at its quantiles, a text into its most frequent values, with a
bin for missing ones); each half of the rows is predicted with the label's means in the bins of the
other half. A number is also tried as a straight line.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ROWS = 50_000
_MOST_BINS = 64
_ROWS_A_BIN = 10
_DOUBT = 2.0
"""Standard errors that are taken off a score, so that few rows do not make a leak."""

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """What one column alone reaches: 1 is a column that gives the label away."""

    measure: str
    """AUC, R2, or 'accuracy above the most frequent class'."""
    value: float
    certain: float
    """The value less two standard errors."""
    by_bins: float
    """What the bins alone explain of the label's variance (0 to 1)."""
    by_line: float
    """What a straight line alone explains of it; 0 for a text. A line is no measure for classes:
    of a multiclass label it is what the bins explain."""


def targets(label: pa.Array, problem: str) -> Floats:
    """The label as float64 [rows, outputs]: 0 or 1, one-hot classes, or a number and its rank.

    The rank catches a column from which the label follows along a curve, such as its logarithm.
    """
    if problem == "regression":
        numbers = label.cast(pa.float64()).to_numpy(zero_copy_only=False)
        _, ranks = np.unique(numbers, return_inverse=True)
        return np.stack([numbers, ranks.astype(np.float64)], axis=1)
    codes = label.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    one_hot = np.eye(int(codes.max()) + 1)[codes]
    return one_hot[:, 1:] if problem == "binary" else one_hot


def halves(rows: int) -> npt.NDArray[np.bool_]:
    """Which of the rows are in the first half, drawn once for all columns."""
    return np.random.default_rng(0).permutation(rows) % 2 == 0


def score(column: pa.Array, wanted: Floats, problem: str) -> Score:
    """The score of a column of int64, float64 or string, for `targets` of the same rows."""
    first = halves(len(wanted))
    codes, count = _bins(column)
    binned = np.empty_like(wanted)
    for half in (first, ~first):
        binned[half] = _means(codes[~half], wanted[~half], count)[codes[half]]
    main = slice(0, 1) if problem == "regression" else slice(None)
    by_bins = _explained(wanted[:, main], binned[:, main])
    by_line = _line(column, wanted[:, main], first)
    if problem == "binary":
        value = _auc(wanted[:, 0], binned[:, 0])
        error = _auc_error(value, wanted[:, 0])
        return Score("AUC", value, value - _DOUBT * error, by_bins, by_line)
    if problem == "multiclass":
        value, error = _accuracy(wanted, binned)
        name = "accuracy above the most frequent class"
        return Score(name, value, value - _DOUBT * error, by_bins, by_bins)
    value = max(by_bins, by_line, _explained(wanted[:, 1:], binned[:, 1:]))
    error = float(2 * np.sqrt(max(0.0, value)) * (1 - value) / np.sqrt(len(wanted)))
    return Score("R2", value, value - _DOUBT * error, by_bins, by_line)


def _bins(column: pa.Array) -> tuple[Ints, int]:
    """A bin's number for each row, and how many bins there are; the last is for missing values."""
    bins = int(np.clip(len(column) // _ROWS_A_BIN, 2, _MOST_BINS))
    if pa.types.is_string(column.type):
        counted = column.drop_null().value_counts()
        order = np.argsort(-counted.field(1).to_numpy(), kind="stable")[: bins - 1]
        frequent = counted.field(0).take(pa.array(order))
        codes = pc.index_in(column, value_set=frequent)
        others = pc.fill_null(codes, len(frequent))
        codes = pc.if_else(pc.is_valid(column), others, len(frequent) + 1)
        return codes.to_numpy(zero_copy_only=False).astype(np.int64), len(frequent) + 2
    numbers = _numbers(column)
    missing = np.isnan(numbers)
    distinct = np.unique(numbers[~missing])
    if len(distinct) > bins:
        distinct = np.unique(np.quantile(numbers[~missing], np.linspace(0, 1, bins + 1)[1:-1]))
    codes = np.searchsorted(distinct, numbers, side="right")
    return np.where(missing, len(distinct) + 1, codes), len(distinct) + 2


def _numbers(column: pa.Array) -> Floats:
    """As float64, NaN where missing."""
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _means(codes: Ints, wanted: Floats, count: int) -> Floats:
    """The mean of each bin, with one row of the overall mean added to each."""
    rows = np.bincount(codes, minlength=count)[:, None]
    sums = np.stack([np.bincount(codes, column, count) for column in wanted.T], axis=1)
    return (sums + wanted.mean(axis=0)) / (rows + 1)


def _explained(wanted: Floats, predicted: Floats) -> float:
    spread = ((wanted - wanted.mean(axis=0)) ** 2).sum()
    return float(1 - ((wanted - predicted) ** 2).sum() / spread) if spread else 0.0


def _line(column: pa.Array, wanted: Floats, first: npt.NDArray[np.bool_]) -> float:
    """What a straight line, fitted to one half, explains of the other; missing is the mean."""
    if pa.types.is_string(column.type) or column.null_count == len(column):
        return 0.0
    numbers = _numbers(column)
    numbers = np.where(np.isnan(numbers), np.nanmean(numbers), numbers)
    predicted = np.empty_like(wanted)
    for half in (first, ~first):
        x, y = numbers[~half], wanted[~half]
        deviations = x - x.mean()
        slopes = deviations @ y / (deviations @ deviations or 1.0)
        predicted[half] = y.mean(axis=0) + np.outer(numbers[half] - x.mean(), slopes)
    return _explained(wanted, predicted)


def _auc(positive: Floats, predicted: Floats) -> float:
    """Area under the ROC curve; equal predictions count half."""
    _, codes = np.unique(predicted, return_inverse=True)
    positives = np.bincount(codes, positive)
    negatives = np.bincount(codes) - positives
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else 0.5


def _auc_error(auc: float, positive: Floats) -> float:
    """The standard error of an AUC (Hanley and McNeil 1982)."""
    positives = positive.sum()
    negatives = len(positive) - positives
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return float(np.sqrt(max(0.0, variance) / (positives * negatives)))


def _accuracy(wanted: Floats, predicted: Floats) -> tuple[float, float]:
    """The accuracy as a fraction of what the most frequent class leaves, and its standard error."""
    right = float((wanted.argmax(axis=1) == predicted.argmax(axis=1)).mean())
    left = 1 - float(wanted.mean(axis=0).max())
    error = float(np.sqrt(right * (1 - right) / len(wanted)))
    return (right - 1 + left) / left, error / left
