import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tensorflow as tf
from tfx import types
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import data_types
from tfx.types import standard_artifacts

from components.errors import PipelineStop
from components.evaluation import heuristic
from components.registry import labels, store
from components.registry.lookup import (
    Baseline,
    BaselineDriver,
    BaselineLookup,
    choose_baseline,
)
from tests.components.evaluation import samples
from tests.components.registry.registries import add

HEURISTIC = Baseline("heuristic")


@pytest.mark.parametrize(
    ("case", "own", "judged", "champion", "versions", "chosen"),
    [
        ("first run", None, None, None, [], HEURISTIC),
        ("same model again, nothing promoted", 1, HEURISTIC, None, [1], HEURISTIC),
        ("same model again, promoted", 1, HEURISTIC, 1, [1], HEURISTIC),
        ("new model", None, None, 1, [1], Baseline("champion", 1)),
        ("that one again", 2, Baseline("champion", 1), 2, [1, 2], Baseline("champion", 1)),
        ("not promoted", 2, Baseline("champion", 1), 1, [1, 2], Baseline("champion", 1)),
        (
            "promoted by hand since",
            2,
            Baseline("champion", 1),
            3,
            [1, 2, 3],
            Baseline("champion", 1),
        ),
        ("rolled back", None, None, 1, [1, 2], Baseline("champion", 1)),
        ("what it beat is gone", 3, Baseline("champion", 1), 2, [2, 3], Baseline("champion", 2)),
        ("gone, and it is champion", 3, Baseline("champion", 1), 3, [3], HEURISTIC),
        ("gone, and no champion", 3, Baseline("champion", 1), None, [3], HEURISTIC),
    ],
)
def test_the_baseline(
    case: str,
    own: int | None,
    judged: Baseline | None,
    champion: int | None,
    versions: list[int],
    chosen: Baseline,
) -> None:
    assert choose_baseline(own, judged, champion, versions) == chosen, case


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[types.Artifact]]:
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "model": [samples.model(folder / "model", 2.0)],
        "examples": [samples.examples(folder / "data", train=samples.rows(300))],
        "schema": [samples.schema(folder / "schema")],
    }


def settings(registry: Path, rule: str = "shop == 'A'") -> dict[str, Any]:
    return {
        "registry": str(registry),
        "model_name": "small",
        "heuristic": rule,
        "features": samples.TABLE.model_dump_json(),
        "code": "",
    }


def file_model(registry: Path, model: Path, baseline: Baseline) -> None:
    """Files a model as the champion."""
    folder = str(registry / "small")
    fingerprint = json.loads((model / "training.json").read_text())["fingerprint"]
    taken = {"baseline": baseline.__dict__}
    version = add(folder, str(model / "Format-Serving"), fingerprint, **taken)
    champion = store.read_labels(folder).get("champion")
    labels.promote(folder, version, labels.Mover("test", ""), over=champion)


def look_up(
    inputs: dict[str, list[types.Artifact]], folder: Path, given: dict[str, Any]
) -> tuple[dict[str, Any], Path]:
    """Runs the executor; gives `baseline.json` and the artifact's folder."""
    baseline = samples.artifact(standard_artifacts.Model, folder / "baseline")
    BaselineLookup.EXECUTOR_SPEC.executor_class().Do(inputs, {"baseline": [baseline]}, given)
    return json.loads((folder / "baseline" / "baseline.json").read_text()), folder / "baseline"


def predicted_by_rule(folder: Path) -> list[float]:
    buckets = heuristic.read(str(folder))
    return buckets.predict(pd.DataFrame({"shop": ["A"]})).ravel().tolist()


def predict(saved_model: Path) -> list[float]:
    call = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    row = samples.encode({"score": 1.0, "shop": "A"})
    return call(tf.constant([row]))["predictions"].numpy().ravel().tolist()


def drive(inputs: dict[str, list[types.Artifact]], given: dict[str, Any]) -> Any:
    """What the driver adds to the exec properties, and so to the cache key."""
    info = data_types.ExecutionInfo(input_dict=inputs, exec_properties=given)
    return BaselineDriver(None).run(info).exec_properties


def test_the_heuristic_and_the_champion_once_there_is_one(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    registry = tmp_path / "registry"
    found, folder = look_up(inputs, tmp_path / "first", settings(registry))
    assert (found["kind"], found["version"]) == ("heuristic", None)
    assert found["heuristic"]["rule"] == "shop == 'A'"
    buckets = {bucket["holds"]: bucket for bucket in found["heuristic"]["buckets"]}
    assert set(buckets) == {"does not hold", "holds", "missing"}
    learned = predicted_by_rule(folder / "Format-Serving")
    assert learned == pytest.approx(buckets["holds"]["prediction"])
    samples.model(tmp_path / "champion", 0.5)
    file_model(registry, tmp_path / "champion", HEURISTIC)
    found, folder = look_up(inputs, tmp_path, settings(registry))
    assert (found["kind"], found["version"]) == ("champion", 1)
    assert predict(folder / "Format-Serving") == predict(tmp_path / "champion" / "Format-Serving")
    assert predicted_by_rule(folder / "heuristic") == learned
    assert not (folder / "Format-Serving" / "manifest.json").exists()


def test_the_driver_puts_the_decision_into_the_cache_key(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    given = settings(tmp_path / "registry")
    before = drive(inputs, given)
    file_model(tmp_path / "registry", Path(inputs["model"][0].uri), HEURISTIC)
    assert drive(inputs, given) == before  # the model itself became champion: nothing changed
    samples.model(tmp_path / "other", 0.5)
    file_model(tmp_path / "registry", tmp_path / "other", Baseline("champion", 1))
    assert drive(inputs, given) == before
    newer = {**inputs, "model": [samples.model(tmp_path / "newer", 0.7)]}
    changed = drive(newer, given)
    assert json.loads(changed["found"].string_value) == {"kind": "champion", "version": 2}
    found, _ = look_up(newer, tmp_path, {**given, "found": changed["found"].string_value})
    assert found["version"] == 2


def test_a_damaged_champion_stops_the_run(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    registry = tmp_path / "registry"
    samples.model(tmp_path / "champion", 0.5)
    file_model(registry, tmp_path / "champion", HEURISTIC)
    (registry / "small" / "1" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(PipelineStop, match=r"Version 1 .* damaged: .*saved_model.pb"):
        look_up(inputs, tmp_path, settings(registry))
    shutil.rmtree(registry / "small" / "1")
    with pytest.raises(PipelineStop, match="champion is version 1, but the registry has only"):
        drive(inputs, settings(registry))


def test_a_wrong_rule_stops_the_run(
    inputs: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    with pytest.raises(PipelineStop, match=r"evaluation.heuristic: .*'shops' is not in the schema"):
        look_up(inputs, tmp_path, settings(tmp_path / "registry", "shops == 'A'"))


@pytest.mark.prove
def test_the_launcher_looks_before_it_asks_the_cache(tmp_path: Path) -> None:
    """Behind TFX's launcher and a real metadata store."""
    registry = tmp_path / "registry"
    samples.examples(tmp_path / "examples", train=samples.rows(300))
    samples.schema(tmp_path / "schema")
    kinds = {"model": standard_artifacts.Model, "schema": standard_artifacts.Schema}
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db"))

    def run(slope: float) -> str:
        model = tmp_path / f"model {slope}"
        if not model.exists():
            samples.model(model, slope)
        places = {"model": model, "schema": tmp_path / "schema"}
        importers = [
            Importer(source_uri=str(uri), artifact_type=kinds[name]).with_id(name)
            for name, uri in places.items()
        ]
        examples = Importer(
            source_uri=str(tmp_path / "examples"),
            artifact_type=standard_artifacts.Examples,
            properties={"split_names": '["train"]'},
            custom_properties={
                "payload_format": "FORMAT_TF_EXAMPLE",
                "file_format": "tfrecords_gzip",
            },
        ).with_id("examples")
        importers.append(examples)
        given = {importer.id: importer.outputs["result"] for importer in importers}
        steps = [*importers, BaselineLookup(**given, **settings(registry))]
        where: dict[str, Any] = {"pipeline_root": str(tmp_path / "root"), "enable_cache": True}
        made = pipeline.Pipeline(
            "small", components=steps, metadata_connection_config=connection, **where
        )
        LocalDagRunner().run(made)
        with metadata.Metadata(connection) as handle:
            found = handle.store.get_executions_by_type("components.registry.lookup.BaselineLookup")
        last = max(found, key=lambda one: one.id).last_known_state
        return {3: "ran", 5: "cached"}.get(last, str(last))

    assert (run(1.0), run(1.0)) == ("ran", "cached")
    file_model(registry, tmp_path / "model 1.0", HEURISTIC)
    assert (run(1.0), run(-1.0), run(-1.0)) == ("cached", "ran", "cached")
    samples.model(tmp_path / "other", 0.5)
    file_model(registry, tmp_path / "other", Baseline("champion", 1))
    assert (run(1.0), run(-1.0)) == ("cached", "ran")
    labels.rollback(str(registry / "small"), labels.Mover("ann", "worse"))
    assert run(-1.0) == "cached"  # as it was judged before
