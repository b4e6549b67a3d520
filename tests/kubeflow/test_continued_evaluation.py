"""Walks of continued evaluation: decided, filed once, and a retraining started once."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.kubeflow.submit import Submission, submit
from tests import small
from tests.kubeflow import walking
from tests.kubeflow.imitation.cluster import RunningStep
from tests.kubeflow.imitation.container import unavailable
from tests.kubeflow.imitation.run import Backend
from tests.pipeline.kubeflow.submit.fake_api import UNHEARD, FakeApi, served

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(bool(unavailable()), reason=str(unavailable())),
]

SETTINGS = {
    "continued_evaluation": {"age": {"spans": 1}, "retraining": {"first": 1, "warm_start": True}}
}
DATA = {"data_path": "/mnt/data"}


class Cluster(NamedTuple):
    """A cluster with a champion that was trained on span 1.

    Attributes:
        backend: What walks the packages.
        api: Kubeflow Pipelines' API, which has the training package.
        training: The training package.
        evaluation: The package of continued evaluation.
        registry: The model's folder.
        data: The volume with the spans.
    """

    backend: Backend
    api: FakeApi
    training: Path
    evaluation: Path
    registry: Path
    data: Path

    def bring(self, span: int) -> None:
        """Rows of a span."""
        small.write_csv(self.data / f"span-{span}" / "rows.csv", small.rows(1500, seed=span))

    def history(self) -> list[dict[str, Any]]:
        """The evaluations in the registry, by span."""
        files = self.registry.glob("evaluations/*/evaluation.json")
        found = [json.loads(file.read_text()) for file in files]
        return sorted(found, key=lambda one: one["evidence"]["span"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with served(FakeApi()) as api:
        reached = {"Decide": {"env": {"KFP_HOST": api.host}}}
        project = walking.SmallProject(folder / "project", SETTINGS, reached)
        environment = walking.image_environment() | {"PYTHONPATH": str(project.folder)}
        backend = Backend(folder / "cluster", project.folder, environment)
        registry = backend.make_claim("workspace") / "registry" / "small"
        training = project.compile()
        evaluation = training.with_name("small-continued-evaluation.yaml")
        made = Cluster(backend, api, training, evaluation, registry, backend.make_claim("data"))
        made.bring(1)
        run = backend.submit(training, DATA)
        assert run.state == "SUCCEEDED", run.log()
        upload(training, api)
        yield made


def upload(package: Path, api: FakeApi) -> None:
    """As `make submit` does; its run is not waited for."""
    request = Submission(
        package=package,
        pipeline="small",
        parameters=DATA,
        experiment="taxi",
        run_name="by hand",
        service_account=None,
        pipeline_root=None,
        schedule=None,
        timeout_seconds=60.0,
        dry_run=False,
        follow=False,
    )
    submit(request, {"KFP_HOST": api.host}, lambda line: None)


def test_a_champion_that_was_trained_on_the_span_is_not_judged_and_nothing_fails(cluster):
    """Until the next span comes, each run of a schedule finds this."""
    before = cluster.history()
    run = cluster.backend.submit(cluster.evaluation, DATA | {"span": "1"})
    assert run.state == "SUCCEEDED", run.log()
    found = walking.states(run)
    assert found["judged-models"] == "SUCCEEDED"
    assert {found[name] for name in ("drift-from-training", "evaluator")} == {"SKIPPED"}
    assert found["decide"] == "OMITTED"
    assert "nothing fresh" in run.tasks["judged-models"].log
    assert cluster.history() == before


def test_a_good_champion_is_kept_and_the_evaluation_is_filed_once(cluster):
    cluster.bring(2)
    runs = [cluster.backend.submit(cluster.evaluation, DATA) for _ in range(2)]
    for run in runs:
        assert run.state == "SUCCEEDED", run.log()
    assert walking.states(runs[1])["curated-schema"] == "CACHED"
    (record,) = cluster.history()
    assert (record["evidence"]["span"], record["evidence"]["champion"]) == (2, 1)
    assert record["decision"] == {"action": "keep", "reasons": []}
    assert (record["run_id"], record["source"]) == (runs[0].id, "/mnt/data/span-{SPAN}/*.csv")
    assert record["evidence"]["metrics"]["champion"]["overall"]["auc"]["low"] > 0.5
    for run in runs:
        assert run.tasks["decide"].outputs["decided"].metadata["action"] == "keep"
        blessed = run.tasks["drift-from-training"].outputs["anomalies"].metadata["blessed"]
        assert blessed == {"struct": {"test_training": 1}}
    assert [one["display_name"] for one in cluster.api.runs.values()] == ["by hand"]


def test_a_retraining_is_started_once_although_the_step_is_lost_after_asking_for_it(cluster):
    cluster.bring(3)
    cluster.api.fail("POST .*/runs$", UNHEARD)
    before = len(cluster.api.runs)

    def lose_when_asked(step: RunningStep) -> None:
        def wait() -> None:
            while step.process.poll() is None and len(cluster.api.runs) == before:
                time.sleep(0.02)
            step.lose_pod()

        if (step.task, step.attempt) == ("decide", 0):
            threading.Thread(target=wait, daemon=True).start()

    run = cluster.backend.submit(cluster.evaluation, DATA, on_start=lose_when_asked)
    assert run.state == "SUCCEEDED", run.log()
    assert run.tasks["decide"].attempts == 2
    record = cluster.history()[-1]
    assert (record["evidence"]["span"], record["decision"]["action"]) == (3, "retrain")
    _, (run_id, started) = cluster.api.runs.items()
    assert started["display_name"] == record["id"]
    followed = cluster.registry / "evaluations" / record["id"] / "followed.json"
    assert json.loads(followed.read_text())["run"] == run_id

    retrained = cluster.backend.submit(cluster.training, started["runtime_config"]["parameters"])
    assert retrained.state == "SUCCEEDED", retrained.log()
    manifest = walking.manifest(cluster.registry, 2)
    assert manifest["data"][0]["spans"] == "[1, 2, 3]"
    assert manifest["training"]["warm_start"] == 1
    assert manifest["config"]["data"]["test_spans"] == "newest"
    assert manifest["config"]["training"]["warm_start"]["version"] == 1
