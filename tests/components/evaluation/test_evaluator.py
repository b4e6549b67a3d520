"""Real TFMA on real SavedModels: the numbers, the verdict, and what is said about it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.evaluator import executor as tfx_executor
from tfx.types import standard_artifacts
from tfx.utils import json_utils, proto_utils

from components.errors import PipelineStop
from components.evaluation.evaluator import SlicedExecutor
from components.evaluation.heuristic import Buckets, Heuristic
from components.evaluation.results import describe, metrics_by_slice
from components.features.table import FeatureTable
from tests.components.evaluation import samples

Inputs = dict[str, list[types.Artifact]]
TEST_ROWS = samples.rows(1_000, seed=1)


class Evaluated(NamedTuple):
    results: dict[str, Any]
    """`metrics.json`."""
    blessed: int

    @property
    def metrics(self) -> dict[str, Any]:
        return self.results["metrics"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A good candidate, a flat champion, and an old heuristic that is wrong way round."""
    folder = tmp_path_factory.mktemp("inputs")
    baseline = samples.model(folder / "baseline", 0.1, number=2)
    samples.model(folder / "wrong", -0.5)
    (folder / "wrong" / "Format-Serving").rename(folder / "baseline" / "heuristic")
    # The training rows would spoil every number, if they were read.
    flipped = [{**row, "bought": 1 - row["bought"]} for row in samples.rows(500)]
    return {
        "examples": [samples.examples(folder / "data", train=flipped, test=TEST_ROWS)],
        "schema": [samples.schema(folder / "schema")],
        "model": [samples.model(folder / "model", 2.0)],
        "baseline_model": [baseline],
    }


def evaluate(
    inputs: Inputs,
    folder: Path,
    thresholds: list[dict[str, Any]],
    kind: str = "champion",
    table: FeatureTable = samples.TABLE,
    min_slice_size: int = 100,
    intervals: bool = False,
) -> Evaluated:
    """Runs the Evaluator."""
    found = {"kind": kind, "version": 4 if kind == "champion" else None}
    Path(inputs["baseline_model"][0].uri, "baseline.json").write_text(json.dumps(found))
    blessing = samples.artifact(standard_artifacts.ModelBlessing, folder / "blessing")
    evaluation = samples.artifact(standard_artifacts.ModelEvaluation, folder / "evaluation")
    judgement = {"min_slice_size": min_slice_size, "thresholds": thresholds}
    SlicedExecutor(samples.context(folder)).Do(
        inputs,
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "features": table.model_dump_json(),
            "judgement": json.dumps(judgement | {"intervals": intervals}),
            "code": "",
        },
    )
    results = json.loads((folder / "evaluation" / "metrics.json").read_text())
    return Evaluated(results, blessing.get_int_custom_property("blessed"))


@pytest.fixture(scope="module")
def good(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The candidate beside the champion, with intervals, and limits that it keeps."""
    limits = [{"metric": "auc", "at_least": 0.7, "over_champion": -0.001}]
    return evaluate(inputs, tmp_path_factory.mktemp("good"), limits, intervals=True)


@pytest.fixture(scope="module")
def turned(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The same rows in another order, and limits that the candidate does not keep."""
    folder = tmp_path_factory.mktemp("turned")
    rows = {**inputs, "examples": [samples.examples(folder / "data", test=TEST_ROWS[::-1])]}
    limits = [
        {"metric": "log_loss", "over_champion": 0.5},
        {"metric": "accuracy", "slices": ["shop"], "at_least": 0.99},
        {"metric": "auc", "slices": ["shop", "hour"], "at_least": 0.1},
    ]
    return evaluate(rows, folder, limits, intervals=True)


@pytest.fixture(scope="module")
def first(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The candidate beside a heuristic that is a rule, while there is no champion."""
    folder = tmp_path_factory.mktemp("first")
    baseline = samples.artifact(standard_artifacts.Model, folder / "baseline", 2)
    flat = Buckets(columns=("hour",), condition="hour < 99")
    rule = Heuristic(buckets=flat, predictions=[[0.1], [0.3], [0.2]], rows=[0, 1, 0])
    for name in ("Format-Serving", "heuristic"):
        rule.write(str(folder / "baseline" / name))
    limits = [{"metric": "log_loss", "over_champion": 9.0, "over_heuristic": 0.01}]
    given = {**inputs, "baseline_model": [baseline]}
    return evaluate(given, folder, limits, kind="heuristic", min_slice_size=1)


def test_all_models_are_measured_by_slice_and_the_better_one_is_blessed(good: Evaluated) -> None:
    assert good.blessed == 1
    assert good.results["failures"] == []
    auc = {model: by_slice["overall"]["auc"] for model, by_slice in good.metrics.items()}
    # The same order of the rows, and the opposite one.
    own = auc["candidate"]
    expected = {"candidate": own, "baseline": own, "heuristic": 1 - own}
    assert auc == pytest.approx(expected, abs=1e-4)
    shops = [row["shop"] for row in TEST_ROWS]
    large = {f"shop={name}": shops.count(name) for name in "AB"}
    assert shops.count("C") < 100 <= min(large.values())
    assert good.results["rows"] == {"overall": 1_000, **large}
    assert all(set(by_slice) == {"overall", *large} for by_slice in good.metrics.values())


def test_two_evaluations_of_the_same_rows_are_equal(good: Evaluated, turned: Evaluated) -> None:
    """Whatever the order of the rows; a decision near a limit would else depend on chance."""
    for model, by_slice in good.results["intervals"].items():
        for name, interval in by_slice["overall"].items():
            again = turned.results["intervals"][model]["overall"][name]
            assert again == pytest.approx(interval, abs=1e-9)


def test_intervals_are_as_wide_as_a_bootstrap_says(good: Evaluated, first: Evaluated) -> None:
    assert "intervals" not in first.results
    candidate = good.metrics["candidate"]["overall"]
    assert candidate == pytest.approx(first.metrics["candidate"]["overall"])
    found = good.results["intervals"]
    assert set(found) == {"candidate", "baseline", "heuristic", "gain"}
    chance = np.random.default_rng(0)
    right = np.array([(row["score"] > 0) == row["bought"] for row in TEST_ROWS])
    means = [chance.choice(right, len(right)).mean() for _ in range(500)]
    value, low, high = found["candidate"]["overall"]["accuracy"]
    assert low < value == candidate["accuracy"] < high
    # Twenty parts tell a standard error to about a sixth of itself.
    assert (high - low) / (2 * 2.09) == pytest.approx(np.std(means), rel=0.6)
    # The same order of the rows in both models: no gain, and no doubt about it.
    assert found["gain"]["overall"]["auc"] == pytest.approx([0, 0, 0], abs=1e-3)


def test_what_falls_short_is_named_with_by_how_much(turned: Evaluated) -> None:
    candidate, champion = (turned.metrics[name] for name in ("candidate", "baseline"))
    assert turned.blessed == 0
    failures = {(f["metric"], f["slice"]): f for f in turned.results["failures"]}
    judged = ("log_loss", "overall"), ("accuracy", "shop=A"), ("accuracy", "shop=B")
    assert set(failures) == {*judged, (None, "hour, shop")}
    short = failures["accuracy", "shop=A"]
    assert (short["kind"], short["limit"]) == ("at_least", 0.99)
    assert short["value"] == pytest.approx(candidate["shop=A"]["accuracy"])
    assert short["by"] == pytest.approx(0.99 - candidate["shop=A"]["accuracy"])
    gain = champion["overall"]["log_loss"] - candidate["overall"]["log_loss"]
    missed = failures["log_loss", "overall"]
    assert (missed["value"], missed["by"]) == pytest.approx((gain, 0.5 - gain))
    assert f"than the champion's, {0.5 - gain:.4f} short of over_champion 0.5" in describe(missed)
    none = describe(failures[None, "hour, shop"])
    assert none == "no slice of hour, shop has enough rows to be judged"


def test_without_a_champion_only_the_margin_over_the_heuristic_counts(first: Evaluated) -> None:
    assert first.blessed == 1
    assert set(first.metrics) == {"candidate", "heuristic"}
    heuristic = first.metrics["heuristic"]["overall"]
    assert heuristic["auc"] == pytest.approx(0.5)
    share = np.mean([row["bought"] for row in TEST_ROWS])
    assert heuristic["calibration"] == pytest.approx(0.3 / share)


def test_the_numbers_are_those_of_tfma_itself(
    inputs: Inputs, first: Evaluated, tmp_path: Path
) -> None:
    ours = {"AUC": "auc", "BinaryAccuracy": "accuracy", "BinaryCrossEntropy": "log_loss"}
    metrics = [
        config_pb2.MetricConfig(class_name=name, config=json.dumps({"name": metric}))
        for name, metric in ours.items()
    ]
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key="bought", signature_name="serving_default")],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["shop"])],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
    )
    evaluation = samples.artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")
    blessing = samples.artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
    tfx_executor.Executor(samples.context(tmp_path)).Do(
        {name: found for name, found in inputs.items() if name != "baseline_model"},
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "eval_config": proto_utils.proto_to_json(config),
            "example_splits": json_utils.dumps(["test"]),
        },
    )
    (expected,) = metrics_by_slice(tfma.load_metrics(evaluation.uri)).values()
    assert set(expected) == {"overall", "shop=A", "shop=B", "shop=C"}
    for where, values in expected.items():
        for metric in ours.values():
            # TFMA tells predictions apart to 1e-4, we to 1e-5.
            close = pytest.approx(values[metric], abs=1e-3 if metric == "auc" else 1e-6)
            assert first.metrics["candidate"][where][metric] == close, (where, metric)


def test_a_slice_with_one_class_is_null_and_fails(inputs: Inputs, tmp_path: Path) -> None:
    one_class = [row for row in TEST_ROWS if row["bought"]]
    rows = {**inputs, "examples": [samples.examples(tmp_path / "data", test=one_class)]}
    found = evaluate(rows, tmp_path, [{"metric": "auc", "at_least": 0.1}])
    assert found.blessed == 0
    assert found.metrics["candidate"]["overall"]["auc"] is None
    assert "auc of overall cannot be computed" in describe(found.results["failures"][0])


def test_named_classes_are_judged_by_the_label_index(tmp_path: Path) -> None:
    table = samples.TABLE.model_validate(
        {**samples.TABLE.model_dump(), "problem": "multiclass", "label": samples.MOODS}
        | {"exclude": {}}
    )
    inputs = {
        "examples": [samples.examples(tmp_path / "data", test=TEST_ROWS)],
        "schema": [samples.schema(tmp_path / "schema")],
        "model": [samples.model(tmp_path / "model", 1.0, "multiclass")],
        "baseline_model": [samples.model(tmp_path / "baseline", -1.0, "multiclass")],
    }
    found = evaluate(inputs, tmp_path, [], "heuristic", table)
    guesses = ["glad" if row["score"] > 0 else "sad" for row in TEST_ROWS]
    right = sum(row["mood"] == guess for row, guess in zip(TEST_ROWS, guesses, strict=True))
    accuracy = found.metrics["candidate"]["overall"]["categorical_accuracy"]
    assert accuracy == pytest.approx(right / len(TEST_ROWS))
    unknown = [{**TEST_ROWS[0], "mood": "angry"}, *TEST_ROWS]
    inputs["examples"] = [samples.examples(tmp_path / "unknown", test=unknown)]
    with pytest.raises(PipelineStop, match="1 rows of the test split have no label, or one that"):
        evaluate(inputs, tmp_path / "again", [], "heuristic", table)
