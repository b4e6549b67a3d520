"""The metrics, computed for many rows at a time, as a metric of TFMA.

TFMA's own metrics take one row at a time through Python for every metric, model and slice, and its
binary log loss is infinite or NaN when one prediction is exactly 0 or 1. These take arrays, and
clip probabilities where Keras does. `components.evaluation.extractors` feeds them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components.errors import PipelineStop
from components.evaluation.thresholds import ROWS, metrics_of

_CLIP = 1e-7
_BUCKETS = 100_000
"""Predictions are told apart to 1e-5 for the areas under curves (TFMA: 1e-4)."""

_EMPTY = np.zeros(0)
Sums = dict[str, float]


@dataclass
class Totals:
    """What is added up over rows: named sums, and for curves how many rows predict what.

    `buckets` holds int64 [K] ascending bucket numbers, `counts` float64 [K, 2] the negatives and
    positives in each.
    """

    sums: Sums = field(default_factory=dict)
    buckets: np.ndarray = field(default_factory=lambda: _EMPTY.astype(np.int64))
    counts: np.ndarray = field(default_factory=lambda: _EMPTY.reshape(0, 2))

    def plus(self, other: "Totals") -> "Totals":
        """The totals of both sets of rows."""
        names = self.sums.keys() | other.sums.keys()
        sums = {name: self.sums.get(name, 0.0) + other.sums.get(name, 0.0) for name in names}
        merged = _counted(
            np.concatenate([self.buckets, other.buckets]),
            np.concatenate([self.counts, other.counts]),
        )
        return Totals(sums, *merged)


def _counted(buckets: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, where = np.unique(buckets, return_inverse=True)
    columns = [np.bincount(where, weights=column, minlength=len(unique)) for column in counts.T]
    return unique, np.stack(columns, axis=1)


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
        "log_loss": -(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)).sum(),
    }
    buckets = np.floor(np.clip(positive, 0, 1) * _BUCKETS).astype(np.int64)
    return Totals(sums, *_counted(buckets, np.stack([1 - truth, truth], axis=1)))


def multiclass_totals(labels: np.ndarray, predictions: np.ndarray) -> Totals:
    """Adds up class indices [N] and probabilities [N, C]."""
    truth: np.ndarray = labels.astype(np.int64)
    of_truth = np.clip(_doubles(predictions[np.arange(len(truth)), truth]), _CLIP, 1)
    right = float((predictions.argmax(axis=1) == truth).sum())
    return Totals({ROWS: float(len(truth)), "right": right, "log_loss": -np.log(of_truth).sum()})


def regression_totals(labels: np.ndarray, predictions: np.ndarray) -> Totals:
    """Adds up values [N] and predictions [N, 1], both in the label's units."""
    truth, guess = _doubles(labels), _doubles(predictions[:, 0])
    return Totals(
        {
            ROWS: float(len(truth)),
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


def _correlation(sums: Sums) -> float:
    rows = sums[ROWS]
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
    "squared_correlation": lambda totals: _correlation(totals.sums),
}
"""Each metric of `thresholds.METRICS` from the totals of its problem type."""


def measure(problem: str, totals: Totals) -> dict[str, float]:
    """All metrics of a problem type, and the number of rows."""
    return {name: FORMULAS[name](totals) for name in (ROWS, *metrics_of(problem))}


class _Combine(beam.CombineFn):
    """From elements with labels [N] and predictions by model [N, C] to TFMA's metrics."""

    def __init__(self, problem: str, model: str) -> None:
        self._problem = problem
        self._model = model

    def create_accumulator(self) -> Totals:
        return Totals()

    def add_input(self, totals: Totals, element: tfma.metrics.StandardMetricInputs) -> Totals:
        predictions = element[tfma.PREDICTIONS_KEY][self._model]
        return totals.plus(_TOTALS[self._problem](element[tfma.LABELS_KEY], predictions))

    def merge_accumulators(self, accumulators: Iterable[Totals]) -> Totals:
        merged = Totals()
        for totals in accumulators:
            merged = merged.plus(totals)
        return merged

    def extract_output(self, totals: Totals) -> dict[tfma.metrics.MetricKey, float]:
        values = measure(self._problem, totals)
        return {_key(name, self._model): value for name, value in values.items()}


def _key(name: str, model: str) -> tfma.metrics.MetricKey:
    return tfma.metrics.MetricKey(name=name, model_name=model, example_weighted=None)


def _computations(
    problem: str, model_names: list[str] | None = None, **unused: Any
) -> list[tfma.metrics.MetricComputation]:
    names = (ROWS, *metrics_of(problem))
    return [
        tfma.metrics.MetricComputation(
            keys=[_key(name, model) for name in names],
            preprocessors=None,
            combiner=_Combine(problem, model),
        )
        for model in model_names or [""]
    ]


class ProblemMetrics(tfma.metrics.Metric):
    """All metrics of a problem type in one, by the names of `thresholds.METRICS`."""

    def __init__(self, problem: str, name: str = "problem_metrics") -> None:
        super().__init__(_computations, name=name, problem=problem)
