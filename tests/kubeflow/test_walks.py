"""Walks of the compiled package on the bad days, and on the days after the first."""

import json
import threading
import time
from pathlib import Path

import pytest

from pipeline import loading
from tests import small
from tests.kubeflow import walking
from tests.kubeflow.imitation.cluster import RunningStep
from tests.kubeflow.imitation.container import unavailable
from tests.kubeflow.imitation.run import Backend

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(bool(unavailable()), reason=str(unavailable())),
]

CACHED = walking.STEPS[:7]
LONG = ("training.epochs=null", "training.steps=3000", "training.early_stopping=null")
OFTEN = "training.checkpoints={every_steps: 100}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster after a first run: its backend, package and registry."""
    folder = tmp_path_factory.mktemp("cluster")
    backend = Backend(folder / "cluster", environment=walking.image_environment())
    registry = backend.make_claim("workspace") / "registry" / "taxi"
    package = walking.write_package(folder)
    run = backend.submit(package, {"data_fingerprint": "1"})
    assert run.state == "SUCCEEDED", run.log()
    return backend, package, registry


def test_nothing_new_is_filed_when_nothing_changed(cluster):
    backend, package, registry = cluster
    before = walking.labels(registry)
    run = backend.submit(package, {"data_fingerprint": "1"})
    found = walking.states(run)
    assert [name for name in walking.STEPS if found[name] == "CACHED"] == CACHED
    assert {found[name] for name in walking.STEPS[7:]} == {"SUCCEEDED"}
    assert (walking.versions(registry), walking.labels(registry)) == ([1], before)
    pushed = walking.output(backend, run, "registry-push", "pushed") / "push.json"
    assert json.loads(pushed.read_text())["reason"] == "this model is version 1 already"


def test_other_hyperparameters_are_judged_against_the_champion(cluster):
    backend, package, registry = cluster
    values = {"data_fingerprint": "1", "learning_rate": 0.0011, "promote": "manual"}
    run = backend.submit(package, values)
    found = walking.states(run)
    assert [name for name in walking.STEPS if found[name] == "CACHED"] == CACHED[:-1]
    assert run.state == "SUCCEEDED", run.log()
    baseline = walking.output(backend, run, "baseline-lookup", "baseline") / "baseline.json"
    assert json.loads(baseline.read_text())["kind"] == "champion"
    assert walking.versions(registry) == [1, 2]
    assert walking.labels(registry) == {"champion": 1, "candidate": 2}
    manifest = walking.manifest(registry, 2)
    assert manifest["config"]["training"]["learning_rate"]["initial"] == 0.0011
    assert manifest["baseline"] == {"kind": "champion", "version": 1}


def test_a_model_that_is_not_good_enough_is_not_filed(cluster):
    backend, package, registry = cluster
    before = walking.versions(registry), walking.labels(registry)
    run = backend.submit(package, {"data_fingerprint": "1", "steps": 1})
    assert run.state == "SUCCEEDED", run.log()
    pushed = walking.output(backend, run, "registry-push", "pushed") / "push.json"
    assert json.loads(pushed.read_text())["reason"].startswith("not blessed")
    blessing = run.tasks["evaluator"].outputs["blessing"].metadata
    assert blessing["blessed"] == 0
    assert (walking.versions(registry), walking.labels(registry)) == before


def test_data_that_does_not_fit_stops_the_run_and_says_why(cluster, tmp_path):
    backend, _, registry = cluster
    before = walking.versions(registry)
    source = loading.data_folder(loading.load("automated")) / "data.csv"
    bad = backend.make_claim("data") / "rows.csv"
    bad.write_text(source.read_text().replace("Credit Card", "Barter"))
    volume = {"volumes": [{"claim": "data", "path": "/mnt/data"}]}
    package = walking.write_package(tmp_path, steps={"ExampleGen": volume})
    run = backend.submit(package, {"data_fingerprint": "2", "data_path": "/mnt/data"})
    found = walking.states(run)
    assert (run.state, found["gate"]) == ("FAILED", "FAILED")
    assert {found[name] for name in walking.STEPS[5:]} == {"OMITTED"}
    reason = walking.last_line(run, "gate")
    assert reason.startswith("Gate failed: ")
    assert "payment_type" in reason
    assert "Barter" in reason
    assert walking.versions(registry) == before


def test_a_lost_pod_and_a_killed_training_go_on_to_the_same_bits(tmp_path):
    """A Trainer whose pod is lost, then one whose process is killed and whose run is sent again."""
    backend = Backend(tmp_path / "cluster", environment=walking.image_environment())
    checkpoints = backend.make_claim("workspace") / "checkpoints"
    always = {"Trainer": {"cache": False, "retry": {"count": 2}}}
    package = walking.write_package(tmp_path, *LONG, OFTEN, steps=always)
    values = {"data_fingerprint": "1"}
    whole = backend.submit(package, values)
    assert whole.state == "SUCCEEDED", whole.log()
    expected = walking.training(backend, whole)["fingerprint"]
    for way in ("lose_pod", "kill"):
        interrupter = _Interrupter(checkpoints, way)
        run = backend.submit(package, values, on_start=interrupter.started)
        assert interrupter.struck
        if way == "lose_pod":
            assert run.tasks["trainer"].attempts == 2
        else:
            assert walking.states(run)["trainer"] == "FAILED"
            run = backend.submit(package, values)
        assert run.state == "SUCCEEDED", run.log()
        found = walking.training(backend, run)
        assert found["checkpoints"]["resumed_at"], way
        assert found["fingerprint"] == expected, way


class _Interrupter:
    """Ends the first Trainer that has written a checkpoint."""

    def __init__(self, checkpoints: Path, way: str):
        self._checkpoints, self._way, self.struck = checkpoints, way, False

    def started(self, step: RunningStep) -> None:
        if step.task == "trainer" and not self.struck:
            threading.Thread(target=self._wait_and_strike, args=[step], daemon=True).start()

    def _wait_and_strike(self, step: RunningStep) -> None:
        while step.process.poll() is None:
            if any(self._checkpoints.glob("*/step-*")):
                self.struck = True
                getattr(step, self._way)()
                return
            time.sleep(0.02)


@pytest.mark.parametrize("uid", [12345])
def test_as_any_user_without_rights_and_with_nothing_writable(tmp_path, uid):
    if reason := unavailable(uid):
        pytest.skip(reason)
    environment = walking.image_environment()
    backend = Backend(tmp_path / "cluster", environment=environment, uid=uid, readonly=True)
    registry = backend.make_claim("workspace") / "registry" / "taxi"
    run = backend.submit(walking.write_package(tmp_path), {"data_fingerprint": "1"})
    assert walking.states(run) == dict.fromkeys(walking.STEPS, "SUCCEEDED"), run.log()
    assert walking.labels(registry) == {"champion": 1}


def test_artifacts_in_s3_and_rows_of_your_own(tmp_path):
    """Another store and root, spans on a volume, the small data, and predictions in bulk."""
    project = walking.SmallProject(tmp_path / "project")
    backend = Backend(
        tmp_path / "cluster",
        working_directory=project.folder,
        environment=walking.image_environment() | {"PYTHONPATH": str(project.folder)},
        stores=("minio", "s3"),
    )
    registry = backend.make_claim("workspace") / "registry" / "small"
    data = backend.make_claim("data")
    for span in (1, 2):
        small.write_csv(data / f"span-{span}" / "rows.csv", small.rows(1500, seed=span))
    package = project.compile()
    values = {"data_path": "/mnt/data", "span": "1"}
    first = backend.submit(package, values, pipeline_root="s3://bucket/deep/root")
    assert first.state == "SUCCEEDED", first.log()
    second = backend.submit(package, {"data_path": "/mnt/data"}, pipeline_root="s3://bucket/root")
    assert second.state == "SUCCEEDED", second.log()
    assert first.tasks["trainer"].outputs["model"].uri.startswith("s3://bucket/deep/root/small/")
    spans = [walking.manifest(registry, n)["data"][0]["spans"] for n in (1, 2)]
    assert spans == ["[1]", "[2]"]
    rows = backend.cluster.claim("workspace") / "rows.csv"
    small.write_csv(rows, small.rows(200))
    predicting = package.with_name("small-batch-predict.yaml")
    run = backend.submit(predicting, {"input": "/mnt/workspace/rows.csv"})
    assert run.state == "SUCCEEDED", run.log()
    [_] = rows.parent.glob(f"predicted/{run.id}/predictions/*.parquet")
