import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from components.errors import PipelineStop
from components.evaluation import metrics
from components.evaluation.thresholds import METRICS, ROWS, metrics_of

RANDOM = np.random.default_rng(1)


def binary(count: int) -> tuple[np.ndarray, np.ndarray]:
    scores = RANDOM.normal(size=count)
    labels = (scores + RANDOM.normal(size=count) > 1).astype(np.int64)
    return labels, (1 / (1 + np.exp(-2 * scores)))[:, None].astype(np.float32)


def test_every_metric_has_a_formula_and_every_formula_a_metric() -> None:
    assert set(metrics.FORMULAS) == {*METRICS, ROWS}
    assert {name for p in ("binary", "multiclass", "regression") for name in metrics_of(p)} == set(
        METRICS
    )


def test_binary_metrics_are_those_of_scikit_learn_and_keras() -> None:
    labels, predictions = binary(20_000)
    got = metrics.measure("binary", metrics.binary_totals(labels, predictions))
    positive = predictions[:, 0].astype(np.float64)
    curve = keras.metrics.AUC(num_thresholds=20_000, curve="PR")
    curve.update_state(labels, positive)
    assert got["example_count"] == 20_000
    assert got["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, positive), abs=1e-5)
    assert got["auc_precision_recall"] == pytest.approx(float(curve.result()), abs=1e-4)
    assert got["accuracy"] == sklearn_metrics.accuracy_score(labels, positive > 0.5)
    assert got["log_loss"] == pytest.approx(sklearn_metrics.log_loss(labels, positive), abs=1e-9)
    assert got["calibration"] == pytest.approx(positive.mean() / labels.mean())


def test_multiclass_metrics_are_those_of_scikit_learn() -> None:
    labels = RANDOM.integers(0, 4, 5_000)
    predictions = RANDOM.dirichlet(np.ones(4), 5_000).astype(np.float32)
    got = metrics.measure("multiclass", metrics.multiclass_totals(labels, predictions))
    assert got["categorical_accuracy"] == sklearn_metrics.accuracy_score(
        labels, predictions.argmax(1)
    )
    expected = sklearn_metrics.log_loss(labels, predictions.astype(np.float64))
    assert got["categorical_log_loss"] == pytest.approx(expected, rel=1e-6)


def test_regression_metrics_are_those_of_numpy() -> None:
    labels = RANDOM.normal(100, 5, 5_000)
    predictions = (labels + RANDOM.normal(0, 2, 5_000))[:, None].astype(np.float32)
    got = metrics.measure("regression", metrics.regression_totals(labels, predictions))
    errors = predictions[:, 0] - labels
    assert got["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert got["mae"] == pytest.approx(np.abs(errors).mean())
    expected = np.corrcoef(labels, predictions[:, 0])[0, 1] ** 2
    assert got["squared_correlation"] == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=4))
def test_totals_do_not_depend_on_how_rows_are_divided(cuts: list[int]) -> None:
    labels, predictions = binary(300)
    merged = metrics.Totals()
    for part in np.split(np.arange(300), sorted(cuts)):
        merged = merged.plus(metrics.binary_totals(labels[part], predictions[part]))
    whole = metrics.measure("binary", metrics.binary_totals(labels, predictions))
    assert metrics.measure("binary", merged) == pytest.approx(whole)


@pytest.mark.parametrize("label", [0, 1])
def test_a_slice_with_one_class_has_no_auc(label: int) -> None:
    totals = metrics.binary_totals(np.full(5, label), np.full((5, 1), 0.3, np.float32))
    assert math.isnan(metrics.measure("binary", totals)["auc"])


def test_certain_predictions_have_a_finite_log_loss() -> None:
    predictions = np.array([[0.0], [1.0], [1.0]], np.float32)
    totals = metrics.binary_totals(np.array([0, 1, 0]), predictions)
    assert metrics.measure("binary", totals)["log_loss"] == pytest.approx(-math.log(1e-7) / 3)


def test_a_binary_label_that_is_neither_0_nor_1_stops_the_run() -> None:
    with pytest.raises(PipelineStop, match=r"beside 0 and 1: \[0, 2\].*features.label.classes"):
        metrics.binary_totals(np.array([0, 2]), np.zeros((2, 1), np.float32))


def test_a_block_with_all_rows_of_a_slice_leaves_none_and_stops_no_run() -> None:
    totals = metrics.regression_totals(np.ones(1), np.ones([1, 1]))
    none = {name: 0.0 for name in totals.sums}
    measured = metrics.measure("regression", replace(totals, sums=none))
    assert math.isnan(measured["squared_correlation"])
