"""What charts of predictions are drawn from, as a metric of TFMA beside the numbers.

For each model and slice it is JSON, a list whose length does not grow with the rows:

- of probabilities [[bin, class, rows], …], the bin 1 / BINS wide, the class 0 or 1;
- of classes [[class, predicted class, rows], …];
- of numbers [[actual, predicted, rows], …], at most SAMPLE of them, chosen by a hash of both.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import tensorflow_model_analysis as tfma

from components.evaluation.thresholds import BINS, CURVES

SAMPLE = 1000


def _of_probabilities(labels: np.ndarray, predictions: np.ndarray) -> list[np.ndarray]:
    bins = np.minimum(predictions.ravel() * BINS, BINS - 1)
    return [bins.astype(np.int64), labels.ravel().astype(np.int64)]


def _of_classes(labels: np.ndarray, predictions: np.ndarray) -> list[np.ndarray]:
    return [labels.astype(np.int64), predictions.argmax(axis=1)]


def _of_numbers(labels: np.ndarray, predictions: np.ndarray) -> list[np.ndarray]:
    return [labels.astype(np.float64), predictions[:, 0].astype(np.float64)]


_PAIRS = {"multiclass": _of_classes, "regression": _of_numbers}


def _sample(counts: pd.Series) -> pd.Series:
    hashes = pd.util.hash_array(counts.index.to_frame().sum(axis=1).to_numpy())
    return counts.iloc[np.argsort(hashes, kind="stable")[:SAMPLE]]


class _Combine(beam.CombineFn):
    """From elements with labels and predictions to counts of pairs, by model."""

    def __init__(self, problem: str, models: Sequence[str]) -> None:
        self._problem, self._models = problem, models

    def create_accumulator(self) -> dict[str, pd.Series]:
        return {}

    def add_input(
        self, counts: dict[str, pd.Series], element: tfma.metrics.StandardMetricInputs
    ) -> dict[str, pd.Series]:
        labels, predictions = element[tfma.LABELS_KEY], element[tfma.PREDICTIONS_KEY]
        pairs_of = _PAIRS.get(self._problem, _of_probabilities)
        own = {}
        for model in self._models:
            pairs = pairs_of(labels, predictions[model])
            own[model] = pd.Series(1, pd.MultiIndex.from_arrays(pairs))
        return self.merge_accumulators([counts, own])

    def merge_accumulators(
        self, accumulators: Iterable[dict[str, pd.Series]]
    ) -> dict[str, pd.Series]:
        there = [counts for counts in accumulators if counts]
        merged = {}
        for model in self._models if there else ():
            summed = pd.concat([counts[model] for counts in there]).groupby(level=[0, 1]).sum()
            merged[model] = _sample(summed) if self._problem == "regression" else summed
        return merged

    def extract_output(self, counts: dict[str, pd.Series]) -> dict[tfma.metrics.MetricKey, bytes]:
        found = {}
        for model in self._models:
            own = counts[model].items() if counts else ()
            pairs = [[*pair, int(rows)] for pair, rows in own]
            found[_key(model)] = json.dumps(pairs).encode()
        return found


def _key(model: str) -> tfma.metrics.MetricKey:
    return tfma.metrics.MetricKey(name=CURVES, model_name=model)


def _computations(
    problem: str, model_names: list[str] | None = None, **unused: Any
) -> list[tfma.metrics.MetricComputation]:
    models = model_names or [""]
    combiner = _Combine(problem, models)
    keys = [_key(model) for model in models]
    return [tfma.metrics.MetricComputation(keys=keys, preprocessors=None, combiner=combiner)]


class Curves(tfma.metrics.Metric):
    """The counts of what was predicted for which label."""

    def __init__(self, problem: str, name: str = CURVES) -> None:
        """Takes the problem type."""
        super().__init__(_computations, name=name, problem=problem)
