"""Real TFMA on real SavedModels: the numbers, the verdict, and what is said about it."""

import json
from pathlib import Path
from typing import Any

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

TEST_ROWS = samples.rows(1_000, seed=1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[types.Artifact]]:
    """A good candidate, a flat champion, and a heuristic that is wrong way round."""
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
    inputs: dict[str, list[types.Artifact]],
    folder: Path,
    thresholds: list[dict[str, Any]],
    kind: str = "champion",
    table: FeatureTable = samples.TABLE,
    min_slice_size: int = 100,
    intervals: bool = False,
) -> tuple[dict[str, Any], int]:
    """Runs the Evaluator; gives `metrics.json` and the blessing."""
    found = {"kind": kind, "version": 4 if kind == "champion" else None}
    Path(inputs["baseline_model"][0].uri, "baseline.json").write_text(json.dumps(found))
    blessing = samples.artifact(standard_artifacts.ModelBlessing, folder / "blessing")
    evaluation = samples.artifact(standard_artifacts.ModelEvaluation, folder / "evaluation")
    SlicedExecutor(samples.context(folder)).Do(
        inputs,
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "features": table.model_dump_json(),
            "judgement": json.dumps(
                {
                    "min_slice_size": min_slice_size,
                    "thresholds": thresholds,
                    "intervals": intervals,
                }
            ),
            "code": "",
        },
    )
    results = json.loads((folder / "evaluation" / "metrics.json").read_text())
    return results, blessing.get_int_custom_property("blessed")


def test_all_models_are_measured_by_slice_and_the_better_one_is_blessed(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    limits = [{"metric": "auc", "at_least": 0.7, "over_champion": -0.001}]
    results, blessed = evaluate(inputs, tmp_path, limits)
    metrics = results["metrics"]
    assert blessed == 1
    assert results["failures"] == []
    assert set(metrics) == {"candidate", "baseline", "heuristic"}
    # The same order of the rows, and the opposite one.
    assert metrics["baseline"]["overall"]["auc"] == pytest.approx(
        metrics["candidate"]["overall"]["auc"], abs=1e-4
    )
    assert metrics["heuristic"]["overall"]["auc"] == pytest.approx(
        1 - metrics["candidate"]["overall"]["auc"], abs=1e-4
    )
    shops = {"A": 0, "B": 0, "C": 0, None: 0}
    for row in TEST_ROWS:
        shops[row["shop"]] += 1
    large = {f"shop={name}": count for name, count in shops.items() if name and count >= 100}
    assert set(large) == {"shop=A", "shop=B"}
    assert results["rows"] == {"overall": 1_000, **large}
    for by_slice in metrics.values():
        assert set(by_slice) == set(results["rows"])


def test_the_numbers_are_those_of_tfma_itself(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    results, _ = evaluate(inputs, tmp_path / "ours", [], min_slice_size=1)
    ours = {"AUC": "auc", "BinaryAccuracy": "accuracy", "BinaryCrossEntropy": "log_loss"}
    model = {"label_key": "bought", "signature_name": "serving_default"}
    config = config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name="candidate", **model),
            config_pb2.ModelSpec(name="baseline", is_baseline=True, **model),
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["shop"])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name=name, config=json.dumps({"name": metric}))
                    for name, metric in ours.items()
                ]
            )
        ],
    )
    evaluation = samples.artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")
    tfx_executor.Executor(samples.context(tmp_path)).Do(
        inputs,
        {
            "evaluation": [evaluation],
            "blessing": [samples.artifact(standard_artifacts.ModelBlessing, tmp_path / "b")],
        },
        {
            "eval_config": proto_utils.proto_to_json(config),
            "example_splits": json_utils.dumps(["test"]),
        },
    )
    expected, _ = metrics_by_slice(tfma.load_metrics(evaluation.uri))
    assert set(expected["candidate"]) == {"overall", "shop=A", "shop=B", "shop=C"}
    for name in ("candidate", "baseline"):
        for where, values in expected[name].items():
            for metric, value in values.items():
                # TFMA tells predictions apart to 1e-4, we to 1e-5.
                close = pytest.approx(value, abs=1e-3 if metric == "auc" else 1e-6)
                assert results["metrics"][name][where][metric] == close, (name, where, metric)


def test_a_slice_that_falls_short_is_named_with_by_how_much(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    limits = [
        {"metric": "log_loss", "over_champion": 0.5},
        {"metric": "accuracy", "slices": ["shop"], "at_least": 0.99},
        {"metric": "accuracy", "at_most": 0.9},
    ]
    results, blessed = evaluate(inputs, tmp_path, limits)
    candidate, champion = (results["metrics"][name] for name in ("candidate", "baseline"))
    assert blessed == 0
    by_slice = {(f["metric"], f["slice"]): f for f in results["failures"]}
    judged = ("log_loss", "overall"), ("accuracy", "shop=A"), ("accuracy", "shop=B")
    assert set(by_slice) == set(judged)
    short = by_slice["accuracy", "shop=A"]
    assert (short["kind"], short["limit"]) == ("at_least", 0.99)
    assert short["value"] == pytest.approx(candidate["shop=A"]["accuracy"])
    assert short["by"] == pytest.approx(0.99 - candidate["shop=A"]["accuracy"])
    gain = champion["overall"]["log_loss"] - candidate["overall"]["log_loss"]
    missed = by_slice["log_loss", "overall"]
    assert (missed["kind"], missed["limit"]) == ("over_champion", 0.5)
    assert (missed["value"], missed["by"]) == pytest.approx((gain, 0.5 - gain))
    ahead = "better" if gain >= 0 else "worse"
    sentence = (
        f"log_loss of overall is {abs(gain):.4f} {ahead} than the champion's, "
        f"{0.5 - gain:.4f} short of over_champion 0.5"
    )
    assert describe(missed) == sentence


def test_without_a_champion_only_the_margin_over_the_heuristic_counts(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    limits = [{"metric": "log_loss", "over_champion": 9.0, "over_heuristic": 0.01}]
    results, blessed = evaluate(inputs, tmp_path, limits, kind="heuristic")
    assert blessed == 1
    assert set(results["metrics"]) == {"candidate", "heuristic"}


def test_a_slice_of_which_none_is_large_enough_is_not_passed_over(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    limits = [{"metric": "auc", "slices": ["shop"], "at_least": 0.1}]
    results, blessed = evaluate(inputs, tmp_path, limits, min_slice_size=999)
    assert blessed == 0
    assert [describe(failure) for failure in results["failures"]] == [
        "no slice of shop has enough rows to be judged"
    ]


def test_a_slice_with_one_class_is_null_and_fails(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    one_class = [row for row in TEST_ROWS if row["bought"]]
    rows = {**inputs, "examples": [samples.examples(tmp_path / "data", test=one_class)]}
    results, blessed = evaluate(rows, tmp_path, [{"metric": "auc", "at_least": 0.1}])
    assert blessed == 0
    assert results["metrics"]["candidate"]["overall"]["auc"] is None
    assert "auc of overall cannot be computed" in describe(results["failures"][0])


def test_named_classes_are_judged_by_the_label_index(tmp_path: Path) -> None:
    table = samples.TABLE.model_validate(
        {**samples.TABLE.model_dump(), "problem": "multiclass", "label": samples.MOODS}
        | {"exclude": {}}
    )
    baseline = samples.model(tmp_path / "baseline", -1.0, "multiclass")
    inputs = {
        "examples": [samples.examples(tmp_path / "data", test=TEST_ROWS)],
        "schema": [samples.schema(tmp_path / "schema")],
        "model": [samples.model(tmp_path / "model", 1.0, "multiclass")],
        "baseline_model": [baseline],
    }
    results, _ = evaluate(inputs, tmp_path, [], "heuristic", table)
    guesses = ["glad" if row["score"] > 0 else "sad" for row in TEST_ROWS]
    right = sum(row["mood"] == guess for row, guess in zip(TEST_ROWS, guesses, strict=True))
    accuracy = results["metrics"]["candidate"]["overall"]["categorical_accuracy"]
    assert accuracy == pytest.approx(right / len(TEST_ROWS))
    unknown = [{**TEST_ROWS[0], "mood": "angry"}, *TEST_ROWS]
    inputs["examples"] = [samples.examples(tmp_path / "unknown", test=unknown)]
    with pytest.raises(PipelineStop, match="1 rows of the test split have no label, or one that"):
        evaluate(inputs, tmp_path / "again", [], "heuristic", table)


def test_two_evaluations_of_the_same_rows_are_equal(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    """Whatever the order of the rows; a decision near a limit would else depend on chance."""
    first, _ = evaluate(inputs, tmp_path / "first", [], intervals=True)
    second, _ = evaluate(inputs, tmp_path / "second", [], intervals=True)
    assert first == second
    turned = {**inputs, "examples": [samples.examples(tmp_path / "turned", test=TEST_ROWS[::-1])]}
    third, _ = evaluate(turned, tmp_path / "third", [], intervals=True)
    for name, interval in first["intervals"]["candidate"]["overall"].items():
        assert third["intervals"]["candidate"]["overall"][name] == pytest.approx(interval)


def test_a_heuristic_is_judged_as_a_rule_and_as_the_model_of_an_older_version(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    baseline = samples.artifact(standard_artifacts.Model, tmp_path / "baseline", 2)
    flat = Buckets(columns=("hour",), condition="hour < 99")
    rule = Heuristic(buckets=flat, predictions=[[0.1], [0.3], [0.2]], rows=[0, 1, 0])
    for folder in ("Format-Serving", "heuristic"):
        rule.write(str(tmp_path / "baseline" / folder))
    given = {**inputs, "baseline_model": [baseline]}
    results, _ = evaluate(given, tmp_path / "out", [], kind="heuristic")
    assert results["metrics"]["heuristic"]["overall"]["auc"] == pytest.approx(0.5)
    share = np.mean([row["bought"] for row in TEST_ROWS])
    calibration = results["metrics"]["heuristic"]["overall"]["calibration"]
    assert calibration == pytest.approx(0.3 / share)


def test_intervals_are_as_wide_as_a_bootstrap_says(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    exact, _ = evaluate(inputs, tmp_path / "exact", [])
    found, _ = evaluate(inputs, tmp_path / "intervals", [], intervals=True)
    assert "intervals" not in exact
    assert found["metrics"]["candidate"]["overall"] == pytest.approx(
        exact["metrics"]["candidate"]["overall"]
    )
    assert set(found["intervals"]) == {"candidate", "baseline", "heuristic", "gain"}
    chance = np.random.default_rng(0)
    right = np.array([(row["score"] > 0) == row["bought"] for row in TEST_ROWS])
    means = [chance.choice(right, len(right)).mean() for _ in range(500)]
    value, low, high = found["intervals"]["candidate"]["overall"]["accuracy"]
    assert low < value < high
    # Twenty parts tell a standard error to about a sixth of itself.
    assert (high - low) / (2 * 2.09) == pytest.approx(np.std(means), rel=0.6)
    # The same order of the rows in both models: no gain, and no doubt about it.
    assert found["intervals"]["gain"]["overall"]["auc"] == pytest.approx([0, 0, 0], abs=1e-3)
