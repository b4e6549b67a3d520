import copy
import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.registry import labels, store
from components.registry.push import RegistryPush, hash_tree
from tests.components.evaluation import samples

CONFIG = {"name": "small", "features": samples.TABLE.model_dump(mode="json")}
EVALUATION = {
    "metrics": {"candidate": {"overall": {"auc": 0.9}, "shop=A": {"auc": 0.8}}},
    "rows": {"overall": 100, "shop=A": 60},
    "failures": [],
}


class Run:
    """Models pushed into one registry, as runs of a pipeline would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = copy.deepcopy(CONFIG)
        self.registry = str(folder / "registry" / "small")
        self.inputs = {
            "examples": [samples.examples(folder / "data", train=samples.rows(7))],
            "schema": [samples.schema(folder / "schema")],
            "statistics": [samples.statistics(folder / "statistics", train=samples.rows(7))],
            "transform_graph": [
                samples.artifact(standard_artifacts.TransformGraph, folder / "graph")
            ],
        }
        self.inputs["examples"][0].span = 3
        (folder / "graph" / "vocabulary").write_bytes(b"graph")

    def push(
        self,
        slope: float,
        blessed: int = 1,
        promote: str = "automatic",
        baseline: int | None = None,
    ) -> dict[str, Any]:
        """Pushes the model of a slope; gives `push.json`."""
        here = self.folder / f"{slope} {promote}"
        blessing = samples.artifact(standard_artifacts.ModelBlessing, here / "blessing")
        Path(blessing.uri, "BLESSED" if blessed else "NOT_BLESSED").touch()
        evaluation = samples.artifact(standard_artifacts.ModelEvaluation, here / "evaluation")
        (here / "evaluation" / "metrics.json").write_text(json.dumps(EVALUATION))
        compared = samples.artifact(standard_artifacts.Model, here / "baseline")
        kind = "champion" if baseline else "heuristic"
        found = {"kind": kind, "version": baseline, "heuristic": {"rule": "shop == 'A'"}}
        (here / "baseline" / "baseline.json").write_text(json.dumps(found))
        (here / "baseline" / "heuristic").mkdir(exist_ok=True)
        (here / "baseline" / "heuristic" / "saved_model.pb").write_bytes(b"rule")
        pushed = samples.artifact(standard_artifacts.PushedModel, here / "pushed")
        inputs = {
            **self.inputs,
            "model": [samples.model(here / "model", slope)],
            "blessing": [blessing],
            "evaluation": [evaluation],
            "baseline": [compared],
        }
        executor = RegistryPush.EXECUTOR_SPEC.executor_class()
        executor.Do(inputs, {"pushed": [pushed]}, self.settings(promote))
        outcome = json.loads((here / "pushed" / "push.json").read_text())
        assert pushed.get_int_custom_property("version") == (outcome["version"] or 0)
        assert pushed.get_int_custom_property("pushed") == outcome["pushed"]
        return outcome

    def settings(self, promote: str) -> dict[str, Any]:
        return {
            "registry": str(self.folder / "registry"),
            "model_name": "small",
            "promote": promote,
            "config": json.dumps(self.config),
            "config_hash": "hash",
            "code": "fingerprint",
            "git_commit": "commit",
            "run_id": "" if promote == "manual" else "run-1",
            "found": '"run-1"',
        }


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def outcome(version: int | None, pushed: bool, promoted: bool, reason: str) -> dict[str, Any]:
    return {"version": version, "pushed": pushed, "promoted": promoted, "reason": reason}


def test_a_blessed_model_becomes_champion_and_the_old_one_previous(run: Run) -> None:
    assert run.push(1.0) == outcome(1, True, True, "blessed against the heuristic")
    assert run.push(2.0, baseline=1) == outcome(2, True, True, "blessed against version 1")
    assert store.read_labels(run.registry) == {"champion": 2, "previous": 1}
    assert labels.read_history(run.registry)[1]["who"] == "run run-1"
    served = tf.saved_model.load(store.version_folder(run.registry, 2)).signatures
    row = tf.constant([samples.encode({"score": 1.0})])
    expected = tf.sigmoid([[2.0]]).numpy()
    assert served["serving_default"](row)["predictions"].numpy() == pytest.approx(expected)


def test_what_is_not_blessed_is_not_pushed_and_what_is_not_promoted_is_the_candidate(
    run: Run,
) -> None:
    refused = outcome(None, False, False, "not blessed: see the Evaluator's failures")
    assert run.push(1.0, blessed=0) == refused
    assert store.list_versions(run.registry) == []
    reason = "blessed; promotion is manual"
    assert run.push(1.0, promote="manual") == outcome(1, True, False, reason)
    assert store.read_labels(run.registry) == {"candidate": 1}


def test_what_breaks_callers_or_was_judged_against_a_former_champion_is_the_candidate(
    run: Run,
) -> None:
    run.push(1.0)
    run.push(2.0, baseline=1)
    late = run.push(3.0, baseline=1)
    assert (late["version"], late["pushed"], late["promoted"]) == (3, True, False)
    assert "by now the champion is 2" in late["reason"]
    run.config["features"]["columns"]["hour"]["missing"] = "error"
    refused = run.push(4.0, baseline=2)
    assert (refused["version"], refused["pushed"], refused["promoted"]) == (4, True, False)
    assert "column 'hour' is required, and callers may leave it out" in refused["reason"]
    assert store.read_labels(run.registry) == {"champion": 2, "previous": 1, "candidate": 4}


def test_a_push_that_was_killed_before_its_promotion_is_finished(run: Run) -> None:
    run.push(1.0)
    Path(run.registry, "labels.json").unlink()
    Path(run.registry, "history.jsonl").unlink()
    assert run.push(1.0) == outcome(1, True, True, "blessed against the heuristic")
    assert store.read_labels(run.registry) == {"champion": 1}
    assert store.list_versions(run.registry) == [1]


@pytest.mark.parametrize("blessed", [0, 1])
def test_the_same_model_again_is_its_version_and_moves_nothing(run: Run, blessed: int) -> None:
    run.push(1.0)
    run.push(2.0, baseline=1)
    labels.rollback(run.registry, labels.Mover("ann", "worse"))
    before = (store.read_labels(run.registry), labels.read_history(run.registry))
    again = run.push(2.0, blessed=blessed, baseline=1)
    assert again == outcome(2, False, False, "this model is version 2 already")
    assert (store.read_labels(run.registry), labels.read_history(run.registry)) == before
    assert store.list_versions(run.registry) == [1, 2]


def test_the_manifest_answers_an_auditor(run: Run) -> None:
    run.push(1.0)
    run.push(2.0, baseline=1)
    manifest = store.read_manifest(run.registry, 2)
    (data,) = manifest["data"]
    assert (data["span"], data["rows_train"]) == (3, 7)
    assert manifest["schema_hash"] == hash_tree(run.inputs["schema"][0].uri)
    assert manifest["transform_hash"] != manifest["schema_hash"]
    expected = {
        "version": 2,
        "model": "small",
        "fingerprint": "slope 2.0",
        "run_id": "run-1",
        "config": CONFIG,
        "config_hash": "hash",
        "code": "fingerprint",
        "git_commit": "commit",
        "hyperparameters": {"slope": 2.0},
        "library_versions": {"tensorflow": tf.__version__},
        "training": {"steps": 1, "code": "code"},
        "metrics": EVALUATION["metrics"],
        "rows_by_slice": EVALUATION["rows"],
        "baseline": {"kind": "champion", "version": 1},
        "heuristic": {"rule": "shop == 'A'"},
        "parent": 1,
    }
    assert {key: manifest[key] for key in expected} == expected
    rest = {"data", "schema_hash", "transform_hash", "time", "files", "signature", "digest"}
    assert set(manifest) == set(expected) | rest
    extra = Path(run.registry) / "1" / store.EXTRA  # what later evaluations compare with
    statistics = run.folder / "statistics" / "Split-train" / "FeatureStats.pb"
    assert (extra / "statistics" / "FeatureStats.pb").read_bytes() == statistics.read_bytes()
    (extra / "heuristic" / "saved_model.pb").write_bytes(b"other")
    assert store.damage(run.registry, 1) == ["assets.extra/heuristic/saved_model.pb was changed"]
