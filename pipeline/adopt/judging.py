"""What the label asks for, and what each column alone tells of it, on rows that it has not seen.

A column is cut into bins, and each half of the rows is predicted with the label's means in the bins
of the other half (scikit-learn's TargetEncoder). A number is also tried as a straight line.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import TargetEncoder

from components.errors import PipelineStop
from pipeline.adopt.part import ProblemType
from pipeline.adopt.table import Column, Value

LEAK, _LEAK_ROWS = 0.96, 50
"""A column that alone reaches more than this, two standard errors taken off, is a leak. With fewer
rows nothing is: chance does as well."""
_OPPOSITES = (
    ("0", "1"), ("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"),
    ("negative", "positive"), ("neg", "pos"), ("bad", "good"), ("fail", "pass"),
    ("inactive", "active"), ("-1", "1"), ("stayed", "left"), ("died", "survived"),
)  # fmt: skip
_MEASURES = {
    "binary": "AUC",
    "multiclass": "accuracy above the most frequent class",
    "regression": "R2",
}
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """The problem, and the label's classes in the order of the model's outputs."""

    problem: ProblemType
    why: str
    classes: tuple[Value, ...] = ()
    """Empty for numbers."""
    rare: str = ""
    """The classes of which a model sees hardly anything, with their rows; or nothing."""
    separator: str = ""
    """Multilabel: between the classes of a row."""


def target(label: Column, values: pa.ChunkedArray, wanted: ProblemType | None = None) -> Target:
    """The problem that a label stands for, or the wanted one if the label allows it.

    Whole numbers are classes if they run from 0 or 1 without gaps, are few, and none is rare.
    `values` are the label's in all rows.

    Raises:
      PipelineStop: the label fits no problem, or not the wanted one.
    """
    is_text, distinct = label.kind == "BYTES", label.distinct
    if is_text and wanted in (None, "multilabel") and (found := _several_labels(values)):
        return found
    known = [int(v) if label.whole and not is_text else v for v, _ in label.frequent]
    runs = label.whole and label.low in (0, 1) and label.high - label.low + 1 == distinct
    are_classes = runs and distinct <= 20 and label.frequent[-1][1] >= label.present / 100
    several: ProblemType = "multiclass" if is_text or are_classes else "regression"
    problem = wanted or ("binary" if distinct == 2 else several)
    mistakes = {
        "regression": {"a regression needs numbers, and these are text": is_text},
        "binary": {"a binary label has two. Choose another --problem": distinct != 2},
        "multilabel": {
            "multilabel needs texts that list classes, at most 100 different ones, with '|', ';' "
            "or ',' between them, as in 'red|green'": True,
        },
        "multiclass": {
            "multiclass needs at least three; leave --problem out": distinct < 3,
            "classes are texts or whole numbers. Use --problem regression": not (
                is_text or label.whole
            ),
            "more than 100 are no classes to learn. Group them, or if they are numbers use "
            "--problem regression": distinct > 100,
        },
    }
    for mistake, holds in mistakes[problem].items():
        if holds:
            shown = ", ".join(str(value)[:30] for value in known[:5]) + ", ..." * (distinct > 5)
            raise PipelineStop(
                f"The label '{label.name}' has {distinct:,} different values ({shown}): {mistake}."
            )
    if problem == "regression":
        why = f"{distinct:,} different numbers from {label.low:g} to {label.high:g}"
        gaps = ", with gaps or rare ones: no classes (else --problem multiclass)"
        return Target(problem, why + gaps * (label.whole and distinct <= 20))
    names = {str(value).strip().lower(): value for value in known}
    pair = next((pair for pair in _OPPOSITES if {*pair} == {*names}), None)
    if problem == "multiclass":
        numbers = "whole numbers in a row, none rare: classes (else --problem regression)"
        classes, why = sorted(known), f"{distinct} different texts" if is_text else numbers
    elif pair:
        classes, why = [names[name] for name in pair], "two values, the second positive by name"
    else:
        why = "two values; the rarer is taken as positive: swap them if that is wrong"
        classes = known
    counts = zip(known, (count for _, count in label.frequent), strict=True)
    return Target(problem, why, tuple(classes), _rare(counts))


def _rare(rows: Iterable[tuple[Value, int]]) -> str:
    """The first five classes of which there are fewer than ten rows."""
    return ", ".join([f"{name} ({count})" for name, count in rows if count < 10][:5])


def _several_labels(texts: pa.ChunkedArray) -> Target | None:
    """The target of texts that list classes, as in 'a|b' or 'b;c;a'; None if they do not.

    The same few parts have to stand in many texts.
    """
    for separator in ("|", ";", ","):
        parts = pc.list_flatten(pc.split_pattern(texts, separator))
        rows = Counter(part.strip() for part in parts.to_pylist())
        rows.pop("", None)
        several = pc.mean(pc.match_substring(texts, separator).cast(pa.float64())).as_py()
        if several > 0.05 and 2 <= len(rows) <= 100 and len(rows) < len(texts.unique()):
            why = f"texts that list some of {len(rows)} classes, between '{separator}'"
            return Target("multilabel", why, tuple(sorted(rows)), _rare(rows.items()), separator)
    return None


def scores(rows: pd.DataFrame, label: "pd.Series[Any]", problem: ProblemType) -> pd.DataFrame:
    """What each column alone tells.

    Args:
      rows: numbers and texts; NaN and None are missing.
      label: the numbers, or the classes' indices from 0 on, of the same rows.
      problem: what the label is.

    Returns:
      A row for each column: its `value` (AUC, R2, or the accuracy above the most frequent class's;
      1 gives the label away), what of it is `certain` (two standard errors taken off), and which
      share of the label's variance the bins explain (`explains`).
    """
    if label.nunique() < 2 or not len(rows.columns):
        return pd.DataFrame(0.0, rows.columns, ["value", "certain", "explains"])
    bins = np.stack([_bins(rows[name]) for name in rows], axis=1)
    is_multiclass = problem == "multiclass"
    outputs = np.eye(label.max() + 1)[label] if is_multiclass else label.to_numpy()[:, None]
    means = _held_out_means(bins, label, problem)
    explains = _explained(outputs, means)
    if problem == "binary":
        value = np.array([roc_auc_score(label, column) for column in means[:, :, 0].T])
        error = np.sqrt(value * (1 - value) / label.value_counts().min())
    elif problem == "multiclass":
        right = (means.argmax(axis=2) == label.to_numpy()[:, None]).mean(axis=0)
        left = 1 - outputs.mean(axis=0).max()
        value, error = (right - 1 + left) / left, np.sqrt(right * (1 - right) / len(rows)) / left
    else:
        numbers = rows.select_dtypes("number")
        line = numbers.fillna(numbers.mean()).corrwith(label).reindex(rows.columns).fillna(0) ** 2
        ranks = label.rank()  # they show a curve, such as the label's logarithm
        curve = _explained(ranks.to_numpy()[:, None], _held_out_means(bins, ranks, problem))
        value = np.clip(np.max([explains, line, curve], axis=0), 0, 1)
        error = 2 * np.sqrt(value) * (1 - value) / np.sqrt(len(rows))
    figures = {"value": value, "certain": value - 2 * error, "explains": explains}
    return pd.DataFrame(figures, rows.columns)


def _bins(values: "pd.Series[Any]") -> npt.NDArray[np.int64]:
    """The bin of each row: between two quantiles, or a frequent value; -1 where missing."""
    most = int(np.clip(len(values) // 10, 2, 64))
    counts = values.value_counts()
    if len(counts) > most and values.dtype != object:
        edges = np.unique(np.nanquantile(values, np.linspace(0, 1, most, endpoint=False)))
        return np.where(values.isna(), -1, np.searchsorted(edges, values))
    places = counts.index[:most].get_indexer(values)
    return np.where(values.isna(), -1, np.where(places < 0, most, places))


def _held_out_means(bins: npt.NDArray[np.int64], label: "pd.Series[Any]", problem: str) -> Floats:
    """The label's means in each row's bin in the other half: [rows, columns, outputs]."""
    kind = "continuous" if problem == "regression" else problem
    encoder = TargetEncoder(target_type=kind, smooth=1.0, cv=2, random_state=0)
    with warnings.catch_warnings(action="ignore"):  # a class with one row
        return encoder.fit_transform(bins, label).reshape(*bins.shape, -1)


def _explained(outputs: Floats, means: Floats) -> Floats:
    """The share of the outputs' variance that each column explains."""
    wrong = ((outputs[:, None, :] - means) ** 2).sum(axis=(0, 2))
    return 1 - wrong / ((outputs - outputs.mean(axis=0)) ** 2).sum()


def leaks(
    rows: pd.DataFrame, label: "pd.Series[Any]", problem: ProblemType, scores: pd.DataFrame
) -> dict[str, str]:
    """The columns that give the label away, alone or together, and how that shows."""
    if len(rows) < _LEAK_ROWS:
        return {}
    values = scores.value[(scores.certain > LEAK) & scores.index.isin(rows.columns)]
    reaches = f"alone reaches {_MEASURES[problem]} {{:.3f}} on rows that it has not seen"
    found = {name: reaches.format(value) for name, value in values.items()}
    if problem == "regression":
        parts = summands(rows.drop(columns=[*found]), label)
        for name in parts:
            others = " and ".join(part for part in parts if part != name)
            found[name] = f"sums to the label with {others}: a linear model has R2 > 0.99"
    return found


def summands(rows: pd.DataFrame, label: "pd.Series[Any]") -> list[str]:
    """Two to four numbers of which a linear model gives the label away; none if there are none.

    They are looked for among the 200 that go most with the label.
    """
    numbers = rows.select_dtypes("number")
    numbers = numbers.loc[:, numbers.std() > 0]
    if len(numbers.columns) < 2:
        return []
    x = (numbers - numbers.mean()).fillna(0) / numbers.std()
    x = x[x.corrwith(label).abs().nlargest(200).index]
    order = x.columns[np.argsort(-np.abs(LinearRegression().fit(x, label).coef_))]
    for count in range(2, min(4, len(order)) + 1):
        some = x[order[:count]]
        if LinearRegression().fit(some, label).score(some, label) > 0.99:
            return [*some]
    return []


def margins(label: Column, problem: ProblemType, rows: float, deviation: float) -> dict[str, float]:
    """By how much a version's metrics may be worse than the heuristic's, and the champion's.

    That allows for chance: two models that are equally good differ by about 0.3 by the root of the
    test rows, or of four times the rows of the rarer class where that is less. Classes are judged
    by their probabilities too (log loss), in proportion to what the label leaves open.

    Args:
      label: its profile.
      problem: what it is.
      rows: that test.
      deviation: of a number.
    """
    if problem == "multilabel":
        return {"auc": 0.01, "log_loss": 0.01}
    shares = np.array([count for _, count in label.frequent]) / max(1, label.present)
    entropy = -float((shares * np.log(shares)).sum())
    evenness = 4 * shares[0] * shares[-1] if problem == "binary" else 1.0
    margin = max(0.002, 0.3 / math.sqrt(max(1.0, rows * evenness)))
    if problem == "regression":
        return {"rmse": margin * deviation}
    if problem == "multiclass":
        return {"categorical_log_loss": margin * entropy, "categorical_accuracy": margin}
    return {"auc": margin, "log_loss": margin * entropy / math.log(2)}
