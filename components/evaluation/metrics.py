"""The metrics and their intervals, computed for many rows at a time, as a metric of TFMA.

TFMA's own metrics take one row at a time through Python for every metric, model and slice, and its
binary log loss is infinite or NaN when one prediction is exactly 0 or 1. These take arrays, and
clip probabilities where Keras does. `components.evaluation.extractors` feeds them.

Totals add up, so an interval is a delete-a-block jackknife: the rows are divided into blocks by
their hash, and it matters how much a metric differs without one of them. TFMA's own jackknife
draws its blocks anew each time; here two evaluations of the same rows are equal.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components.errors import PipelineStop
from components.evaluation.thresholds import (
    BASELINE,
    CANDIDATE,
    GAIN,
    HIGH,
    LOW,
    METRICS,
    ROWS,
    metrics_of,
)

_CLIP = 1e-7
_BUCKETS = 100_000
"""Predictions are told apart to 1e-5 for the areas under curves (TFMA: 1e-4)."""

BLOCKS = 20
BLOCK = "__block"
"""Beside the models' predictions: int64 [N], each row's block of the jackknife."""
_T = 2.093
"""Student's t, two-sided 95 %, of BLOCKS - 1 degrees of freedom."""


@dataclass
class Totals:
    """What is added up over rows: named sums, and for curves how many rows predict what.

    `buckets` holds int64 [K] ascending bucket numbers, `counts` float64 [K, 2] the negatives and
    positives in each.
    """

    sums: Mapping[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def plus(self, other: "Totals", sign: int = 1) -> "Totals":
        """The totals of both sets of rows; with the sign -1, of those that are not in the other."""
        sums: defaultdict[str, float] = defaultdict(float, self.sums)
        for name, value in other.sums.items():
            sums[name] += sign * value
        buckets = np.concatenate([self.buckets, other.buckets])
        return Totals(sums, *_counted(buckets, np.concatenate([self.counts, sign * other.counts])))


def _counted(buckets: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, where = np.unique(buckets, return_inverse=True)
    columns = [np.bincount(where, weights=column, minlength=len(unique)) for column in counts.T]
    added = np.stack(columns, axis=1)
    there = added.any(axis=1)
    return unique[there], added[there]


def _doubles(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


def binary_totals(labels: np.ndarray, predictions: np.ndarray) -> Totals:
    """Adds up labels [N] of 0 and 1 and probabilities [N, 1]."""
    if not np.isin(labels, (0, 1)).all():
        raise PipelineStop(
            f"The label has values beside 0 and 1: {np.unique(labels)[:5].tolist()}. Fix the data, "
            "or name the two classes in features.label.classes."
        )
    truth, positive = _doubles(labels), _doubles(predictions[:, 0])
    clipped = np.clip(positive, _CLIP, 1 - _CLIP)
    sums = {
        ROWS: float(len(truth)),
        "label": truth.sum(),
        "prediction": positive.sum(),
        "right": float(((positive > 0.5) == (truth > 0.5)).sum()),
        "false_positive": float(((positive > 0.5) & (truth < 0.5)).sum()),
        "false_negative": float(((positive <= 0.5) & (truth > 0.5)).sum()),
        "log_loss": -(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)).sum(),
    }
    buckets = np.floor(np.clip(positive, 0, 1) * _BUCKETS).astype(np.int64)
    return Totals(sums, *_counted(buckets, np.stack([1 - truth, truth], axis=1)))


def multilabel_totals(labels: np.ndarray, predictions: np.ndarray) -> Totals:
    """Adds up labels of 0 and 1 and probabilities, [N, C] each: every pair counts 1 / C of a row.

    With C = 1, as in the slice of one class, labels may be [N].
    """
    pairs = binary_totals(labels.ravel(), predictions.reshape(-1, 1))
    share = 1 / predictions.shape[1]
    sums = {name: value * share for name, value in pairs.sums.items()}
    return Totals(sums, pairs.buckets, pairs.counts * share)


def multiclass_totals(labels: np.ndarray, predictions: np.ndarray) -> Totals:
    """Adds up class indices [N] and probabilities [N, C]."""
    truth: np.ndarray = labels.astype(np.int64)
    of_truth = np.clip(_doubles(predictions[np.arange(len(truth)), truth]), _CLIP, 1)
    right = float((predictions.argmax(axis=1) == truth).sum())
    return Totals({ROWS: float(len(truth)), "right": right, "log_loss": -np.log(of_truth).sum()})


def regression_totals(labels: np.ndarray, predictions: np.ndarray) -> Totals:
    """Adds up values [N] and predictions [N, 1], both in the label's units.

    Behind a prediction there may be its distribution's quantiles of evenly spaced levels, [N, Q].
    Twice the mean of their pinball losses is the continuous ranked probability score; that of a
    point alone is its absolute error (Gneiting and Raftery 2007, doi:10.1198/016214506000001437).
    """
    truth, guess = _doubles(labels), _doubles(predictions[:, 0])
    crps = np.abs(truth - guess)
    if (count := predictions.shape[1] - 1) > 0:
        levels, below = np.arange(1, count + 1) / (count + 1), truth[:, None] - predictions[:, 1:]
        crps = 2 * np.maximum(levels * below, (levels - 1) * below).mean(axis=1)
    return Totals(
        {
            ROWS: float(len(truth)),
            "crps": crps.sum(),
            "absolute": np.abs(truth - guess).sum(),
            "squared": ((truth - guess) ** 2).sum(),
            "y": truth.sum(),
            "p": guess.sum(),
            "yy": (truth**2).sum(),
            "pp": (guess**2).sum(),
            "yp": (truth * guess).sum(),
        }
    )


def _curve(totals: Totals) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives [K + 1] predicted at least as high as each bucket, from the top."""
    above = np.cumsum(totals.counts[::-1], axis=0)
    above = np.concatenate([np.zeros((1, 2)), above])
    return above[:, 1], above[:, 0]


def area_under_roc(totals: Totals) -> float:
    """The area under the ROC curve; NaN if there is only one class."""
    positives, negatives = _curve(totals)
    area = np.trapezoid(positives, negatives)
    return _ratio(float(area), float(positives[-1] * negatives[-1]))


def area_under_precision_recall(totals: Totals) -> float:
    """The area under the precision-recall curve, interpolated as Keras and TFMA do."""
    positives, negatives = _curve(totals)
    predicted = positives + negatives
    slope = np.diff(positives) / np.diff(predicted)
    intercept = positives[1:] - slope * predicted[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(predicted[:-1] > 0, predicted[1:] / predicted[:-1], 1.0)
    area = (slope * (np.diff(positives) + intercept * np.log(ratio))).sum()
    return _ratio(float(area), float(positives[-1]))


def _correlation(sums: Mapping[str, float]) -> float:
    rows = sums[ROWS]
    if rows <= 0:  # of a small slice, whose rows are all in the block that is left out
        return float("nan")
    covariance = sums["yp"] - sums["y"] * sums["p"] / rows
    spread = (sums["yy"] - sums["y"] ** 2 / rows) * (sums["pp"] - sums["p"] ** 2 / rows)
    return _ratio(covariance**2, spread)


def _ratio(value: float, by: float) -> float:
    return float(value / by) if by > 0 else float("nan")


def _mean(name: str) -> Callable[[Totals], float]:
    return lambda totals: _ratio(totals.sums[name], totals.sums[ROWS])


_TOTALS = {
    "binary": binary_totals,
    "multiclass": multiclass_totals,
    "multilabel": multilabel_totals,
    "regression": regression_totals,
}

FORMULAS: dict[str, Callable[[Totals], float]] = {
    ROWS: lambda totals: totals.sums[ROWS],
    "auc": area_under_roc,
    "auc_precision_recall": area_under_precision_recall,
    "accuracy": _mean("right"),
    "log_loss": _mean("log_loss"),
    "calibration": lambda totals: _ratio(totals.sums["prediction"], totals.sums["label"]),
    "categorical_accuracy": _mean("right"),
    "categorical_log_loss": _mean("log_loss"),
    "rmse": lambda totals: float(np.sqrt(_mean("squared")(totals))),
    "mae": _mean("absolute"),
    "crps": _mean("crps"),
    "false_positive_rate": lambda t: _ratio(
        t.sums["false_positive"], t.sums[ROWS] - t.sums["label"]
    ),
    "false_negative_rate": lambda t: _ratio(t.sums["false_negative"], t.sums["label"]),
    "squared_correlation": lambda totals: _correlation(totals.sums),
}
"""Each metric of `thresholds.METRICS` from the totals of its problem type."""


def totals_of(problem: str, labels: np.ndarray, predictions: np.ndarray) -> Totals:
    """The totals of a problem type."""
    return _TOTALS[problem](labels, predictions)


def measure(problem: str, totals: Totals) -> dict[str, float]:
    """All metrics of a problem type, and the number of rows."""
    return {name: FORMULAS[name](totals) for name in (ROWS, *metrics_of(problem))}


def interval(value: float, without: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a metric from its values without each of the blocks (jackknife)."""
    left_out: np.ndarray = np.array(without)
    squares = ((left_out - left_out.mean()) ** 2).sum()
    half = _T * float(np.sqrt(squares * (len(left_out) - 1) / len(left_out)))
    return value - half, value + half


class _Combine(beam.CombineFn):
    """From elements with labels [N] and predictions by model [N, C] to TFMA's metrics."""

    def __init__(self, problem: str, models: Sequence[str], intervals: bool) -> None:
        self._problem = problem
        self._models = models
        self._intervals = intervals

    def create_accumulator(self) -> dict[tuple[str, int], Totals]:
        return {}

    def add_input(
        self, totals: dict[tuple[str, int], Totals], element: tfma.metrics.StandardMetricInputs
    ) -> dict[tuple[str, int], Totals]:
        labels, predictions = element[tfma.LABELS_KEY], element[tfma.PREDICTIONS_KEY]
        blocks = predictions[BLOCK]
        for block in np.unique(blocks).tolist():
            rows = blocks == block
            for model in self._models:
                own = _TOTALS[self._problem](labels[rows], predictions[model][rows])
                totals[model, block] = totals.get((model, block), Totals()).plus(own)
        return totals

    def merge_accumulators(
        self, accumulators: Iterable[dict[tuple[str, int], Totals]]
    ) -> dict[tuple[str, int], Totals]:
        merged: dict[tuple[str, int], Totals] = {}
        for key, own in (pair for totals in accumulators for pair in totals.items()):
            merged[key] = merged.get(key, Totals()).plus(own)
        return merged

    def extract_output(
        self, totals: dict[tuple[str, int], Totals]
    ) -> dict[tfma.metrics.MetricKey, float]:
        found: dict[str, dict[str, float]] = {}
        without: dict[str, list[dict[str, float]]] = {}
        for model in self._models:
            blocks = [totals.get((model, block), Totals()) for block in range(BLOCKS)]
            whole = functools.reduce(Totals.plus, blocks)
            found[model] = measure(self._problem, whole)
            if self._intervals:
                rest = (whole.plus(block, -1) for block in blocks)
                without[model] = [measure(self._problem, others) for others in rest]
        if BASELINE in without:
            found[GAIN] = _less(found[CANDIDATE], found[BASELINE])
            without[GAIN] = [*map(_less, without[CANDIDATE], without[BASELINE])]
        values = {_key(name, m): value for m in found for name, value in found[m].items()}
        for model, others in without.items():
            for name, value in found[model].items():
                low, high = interval(value, [one[name] for one in others])
                if model != GAIN and name in METRICS:  # no share of more than all, or of less
                    low, high = max(low, 0.0), min(high, METRICS[name].most)
                values |= {_key(f"{name}/{LOW}", model): low, _key(f"{name}/{HIGH}", model): high}
        return values


def _less(values: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    return {name: value - others[name] for name, value in values.items()}


def _key(name: str, model: str) -> tfma.metrics.MetricKey:
    return tfma.metrics.MetricKey(name=name, model_name=model, example_weighted=None)


def _computations(
    problem: str, intervals: bool, model_names: list[str] | None = None, **unused: Any
) -> list[tfma.metrics.MetricComputation]:
    combiner = _Combine(problem, model_names or [""], intervals)
    keys = list(combiner.extract_output({}))
    return [tfma.metrics.MetricComputation(keys=keys, preprocessors=None, combiner=combiner)]


class ProblemMetrics(tfma.metrics.Metric):
    """All metrics of a problem type in one, by the names of `thresholds.METRICS`."""

    def __init__(
        self,
        problem: str,
        intervals: bool,
        classes: Sequence[str] = (),
        name: str = "problem_metrics",
    ) -> None:
        """Takes the problem type; the extractors read the classes of a multilabel problem here."""
        super().__init__(
            _computations, name=name, problem=problem, intervals=intervals, classes=classes
        )
