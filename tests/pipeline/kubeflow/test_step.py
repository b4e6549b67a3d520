"""The real step, started as the launcher starts it, with what a real backend hands over."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from pipeline import loading
from pipeline.kubeflow import compiling, parameters, step
from tests.pipeline.kubeflow.launched import RECORDED, Cluster, Run, readable_by_all

FIRST = ("curated-schema", "example-gen", "statistics-gen", "example-validator", "gate")
TRAINED = (*FIRST, "transform", "trainer")
JUDGED = ("baseline-lookup", "evaluator", "registry-push")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def package(cluster):
    return cluster.compile()


@pytest.fixture(scope="module")
def first(cluster, package) -> Run:
    """A first run, to its end."""
    run = Run(cluster, package, {"data_path": str(cluster.data)})
    run.good(*TRAINED, *JUDGED)
    return run


def again(first: Run, *steps: str, **values) -> Run:
    """Another run in which these steps run; the others are cached."""
    run = Run(first.cluster, first.package, first.values | values)
    run.made = {task: made for task, made in first.made.items() if task not in steps}
    run.good(*steps)
    return run


def test_uris_are_paths_and_become_uris_again():
    for uri, path in (
        ("minio://mlpipeline/v2/x", "/minio/mlpipeline/v2/x"),
        ("s3://b/k", "/s3/b/k"),
        ("gs://b/k", "/gcs/b/k"),
        ("/mnt/workspace/x", "/mnt/workspace/x"),
    ):
        assert step.Stores().local(uri) == path
        assert step.Stores().remote(path) == uri


def test_what_kfp_adds_to_an_artifact_is_no_property_of_it_and_the_ids_are_kept():
    [given] = RECORDED["inputs"]["artifacts"]["examples"]["artifacts"]
    found = step.read_artifact(given, standard_artifacts.Examples)
    assert (found.id, found.uri) == (81, given["uri"])
    assert found.split_names == '["train", "eval"]'
    added = {"file_format", "input_fingerprint", "payload_format", "span", "tfx_version"}
    assert set(found.mlmd_artifact.custom_properties) == added


def test_a_link_to_a_folder_becomes_a_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    made = tmp_path / "made"
    made.mkdir()
    (made / "link").symlink_to(tmp_path / "real")
    step._resolve_links(made)
    assert not (made / "link").is_symlink()
    assert (made / "link" / "file").read_text() == "x"


_IMPORTED = """
import json, sys
from pipeline import imports
from pipeline.kubeflow import step
with imports.no_more_than_needed():
    component = step.make_component(json.loads(sys.argv[1]), {})
step._described("model", next(iter(component.outputs.values())).type(), step.Stores())
print(json.dumps([*sys.modules]))
"""


@pytest.mark.prove
def test_a_step_imports_no_more_than_it_needs():
    """TFMA, TFX's other components and KFP's SDK take as long as all the rest."""
    package = compiling.training(parameters.load("automated"), compiling.load_target("kubeflow"))
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED, json.dumps(package.steps["Trainer"])],
        cwd=loading.PROJECT,
        capture_output=True,
        text=True,
    )
    found = {*json.loads(done.stdout.splitlines()[-1])}
    assert {"tfx.components.trainer.component", "kfp.pipeline_spec.pipeline_spec_pb2"} <= found
    unneeded = {"tensorflow_model_analysis.metrics", "kfp.dsl", "kubernetes", "tfx.v1", "nltk"}
    assert not unneeded & found


@pytest.mark.prove
def test_a_step_runs_and_one_of_another_image_says_so(cluster, package):
    run = Run(cluster, package, {})
    done = run.step("curated-schema")
    assert done.code == 0, done.log
    assert done.last_line == "CuratedSchema is done."
    schema = run.made["curated-schema"]["schema"]
    assert schema["uri"].startswith("minio://mlpipeline/v2/artifacts/small/")
    assert schema["metadata"].keys() == {"tfx_version"}
    assert done.output.keys() == {"artifacts"}
    file = cluster.project.folder / "configs" / "small.schema.pbtxt"
    before = file.read_text()
    file.write_text(before.replace("min: 0 max: 23", "min: 0 max: 24"))
    other = Run(cluster, package, {}).step("curated-schema")
    file.write_text(before)
    assert (other.code, other.output) == (1, None)
    assert other.last_line.startswith("CuratedSchema failed: The image's schema")
    assert "Traceback" not in other.log


@pytest.mark.prove
def test_a_first_run_files_a_champion(first, cluster):
    assert cluster.versions() == [1]
    manifest = cluster.manifest(1)
    assert manifest["baseline"] == {"kind": "heuristic", "version": None}
    assert manifest["run_id"] == first.id
    assert manifest["metrics"]["candidate"]["overall"]["auc"] > 0.6
    assert "/minio" not in json.dumps(manifest)
    assert manifest["data"][0]["uri"] == first.made["example-gen"]["examples"]["uri"]
    pushed = first.made["registry-push"]["pushed"]
    assert pushed["metadata"]["version"] == 1
    assert not any(value is None for value in pushed["metadata"].values())


@pytest.mark.prove
def test_the_models_are_those_of_a_local_run(first, cluster):
    """The same data gives the same weights, metrics and hash of the transform as in one process."""
    data = cluster.project.folder / "data"
    shutil.rmtree(data)
    shutil.copytree(cluster.data, data)
    done = cluster.project.run()
    assert done.code == 0, done.output
    there = json.loads((cluster.project.registry / "1" / "manifest.json").read_text())
    here = cluster.manifest(1)
    for name in ("fingerprint", "transform_hash", "metrics", "schema_hash"):
        assert here[name] == there[name], name


@pytest.mark.prove
def test_an_unchanged_run_files_no_second_version(first, cluster):
    before = cluster.versions()
    run = again(first, *JUDGED)
    outcome = json.loads((run.output("registry-push", "pushed") / "push.json").read_text())
    assert outcome["reason"] == "this model is version 1 already"
    assert cluster.versions() == before


@pytest.mark.prove
def test_another_learning_rate_is_judged_against_the_champion(first, cluster):
    run = again(first, "trainer", *JUDGED, learning_rate=0.03, promote="manual")
    baseline = run.output("baseline-lookup", "baseline") / "baseline.json"
    assert json.loads(baseline.read_text())["kind"] == "champion"
    newest = cluster.versions()[-1]
    manifest = cluster.manifest(newest)
    assert newest > 1
    assert manifest["config"]["training"]["learning_rate"]["initial"] == 0.03
    assert manifest["config"]["registry"]["promote"] == "manual"
    assert manifest["baseline"] == {"kind": "champion", "version": 1}


@pytest.mark.prove
def test_a_model_that_is_not_good_enough_is_not_filed(first, cluster):
    before = cluster.versions()
    run = again(first, "trainer", *JUDGED, steps=1, learning_rate=1e-9)
    outcome = json.loads((run.output("registry-push", "pushed") / "push.json").read_text())
    assert outcome["reason"].startswith("not blessed")
    assert cluster.versions() == before


@pytest.mark.prove
def test_bad_data_stops_at_the_gate_with_the_reason(first, cluster):
    cluster.bring(9, method="barter")
    run = Run(cluster, first.package, first.values | {"span": "9"})
    run.good(*FIRST[:-1])
    done = run.step("gate")
    assert done.code == 1
    assert done.last_line.startswith("Gate failed: ")
    assert "method" in done.last_line
    assert "barter" in done.last_line


@pytest.mark.prove
@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_trainer_goes_on_to_the_same_bits(first, cluster, way):
    settings = ("training.epochs=null", "training.steps=600", "training.early_stopping=null")
    often = "training.checkpoints={every_steps: 20}"
    package = cluster.compile(*settings, often)

    def fresh() -> Run:
        run = Run(cluster, package, first.values)
        run.made = dict(first.made)
        return run

    whole = fresh()
    whole.good("trainer")
    expected = json.loads((whole.output("trainer", "model") / "training.json").read_text())
    run = fresh()
    process = run.start("trainer")
    deadline = time.monotonic() + 300
    while not any(cluster.workspace.glob("checkpoints/*/step-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(way)
    log, _ = process.communicate()
    assert run.ended("trainer", process.returncode, log).code not in (0, None)
    if way == signal.SIGTERM:
        assert "Trainer failed: " in log.strip().splitlines()[-1]
    run.good("trainer")
    found = json.loads((run.output("trainer", "model") / "training.json").read_text())
    assert found["checkpoints"]["resumed_at"]
    assert found["fingerprint"] == expected["fingerprint"]


@pytest.mark.prove
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_as_any_user_whose_image_cannot_be_written(first, tmp_path):
    cluster = Cluster(tmp_path / "cluster", uid=12345)
    readable_by_all(cluster.folder)
    for folder in (cluster.workspace, cluster.folder / "minio"):
        os.chown(folder, 12345, 12345)
    run = Run(cluster, cluster.compile(), {"data_path": str(cluster.data)})
    for task in (*TRAINED, *JUDGED):
        done = run.step(task, HOME="/tmp", USER="pipeline")
        assert done.code == 0, done.log
    assert cluster.versions() == [1]
    assert Path(cluster.registry).stat().st_uid == 12345
