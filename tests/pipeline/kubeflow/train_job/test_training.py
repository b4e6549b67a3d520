"""Real trainings by the pods of a TrainJob, against a stand-in for the cluster."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.kubeflow.train_job.compiled import Compiled
from tests.pipeline.kubeflow.train_job.fake_cluster import FakeCluster, served
from tests.pipeline.kubeflow.train_job.steps import TrainerStep
from tests.pipeline.kubeflow.train_job.waiting_for import until


@pytest.fixture
def cluster(small_project: Compiled) -> FakeCluster:
    made = FakeCluster(small_project.project.folder)
    made.apply(small_project.manifests)
    return made


@pytest.fixture
def kube_config(cluster: FakeCluster, tmp_path: Path) -> Iterator[Path]:
    with served(cluster, tmp_path) as config:
        yield config


@pytest.fixture
def step(small_project: Compiled, tmp_path: Path) -> TrainerStep:
    return small_project.step(tmp_path / "outputs")


def _written(step: TrainerStep) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What a step made: output metadata with general URIs, training.json, and all files."""
    outputs = step.outputs
    text = (outputs / "output_metadata.json").read_text().replace(str(outputs), "OUTPUTS")
    training = json.loads((outputs / "model" / "training.json").read_text())
    files = [p.relative_to(outputs) for p in outputs.rglob("*") if p.is_file()]
    plain = sorted(str(path) for path in files if "tfevents" not in path.name)
    return json.loads(text), training, plain


@pytest.mark.prove
def test_two_workers_train_a_model_and_the_step_hands_it_over(
    small_project: Compiled,
    cluster: FakeCluster,
    kube_config: Path,
    step: TrainerStep,
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    assert step.start(kube_config, log).wait(200) == 0, log.read_text()
    metadata, training, files = _written(step)
    assert {name: one["artifacts"][0]["uri"] for name, one in metadata["artifacts"].items()} == {
        "model": "OUTPUTS/model",
        "model_run": "OUTPUTS/model_run",
    }
    assert training["replicas"] == 2
    assert "model/Format-Serving/saved_model.pb" in files
    (jobset,) = cluster.sets.values()
    said, shown = jobset.pods[0].text().splitlines(), log.read_text().splitlines()
    assert [line for line in shown[:-1] if line in said] == said
    assert shown[-1] == "Trainer is done."
    assert "the training is done" in jobset.pods[1].text()
    until(lambda: not cluster.jobs)
    assert list(small_project.workspace.glob("train-jobs/*")) == []


@pytest.mark.prove
def test_a_killed_worker_starts_all_again_and_the_model_is_what_two_local_workers_train(
    small_project: Compiled,
    cluster: FakeCluster,
    kube_config: Path,
    step: TrainerStep,
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    longer = step.with_training(steps=600, epochs=None, evaluate_every_steps=100)
    plain = longer.alone(tmp_path / "plain")
    assert plain.start(kube_config, tmp_path / "plain-log").wait(200) == 0
    process = longer.start(kube_config, log)
    until(lambda: list(small_project.workspace.glob("checkpoints/*/step-*")))
    (jobset,) = cluster.sets.values()
    jobset.pods[1].kill()
    assert process.wait(300) == 0, log.read_text()
    assert jobset.restarts == 1
    assert "goes on at step" in log.read_text()
    metadata, training, files = _written(longer)
    plain_metadata, plain_training, plain_files = _written(plain)
    assert training["checkpoints"]["resumed_at"]
    assert training["fingerprint"] == plain_training["fingerprint"]
    assert (metadata, files) == (plain_metadata, plain_files)


@pytest.mark.prove
def test_a_training_that_cannot_be_fails_with_its_reason(
    cluster: FakeCluster, kube_config: Path, step: TrainerStep, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = step.with_training(global_batch_size=63).start(kube_config, log)
    assert process.wait(200) == 1
    last = log.read_text().splitlines()[-1]
    assert last.startswith("Trainer failed: ")
    assert "is 63, which 2 replicas cannot share evenly" in last
    (jobset,) = cluster.sets.values()
    assert jobset.restarts == 0
    until(lambda: not cluster.jobs)


@pytest.mark.prove
def test_workers_without_their_step_end_and_are_not_started_again(
    small_project: Compiled,
    cluster: FakeCluster,
    kube_config: Path,
    step: TrainerStep,
    tmp_path: Path,
) -> None:
    """The step is killed so that nothing deletes the TrainJob: as when only its container ends."""
    log, endless = tmp_path / "log", step.with_training(steps=10**6, epochs=None)
    process = endless.start(kube_config, log)
    until(lambda: list(small_project.workspace.glob("checkpoints/*/step-*")))
    process.kill()
    (jobset,) = cluster.sets.values()
    until(lambda: jobset.conditions, 120)
    assert jobset.conditions[0]["reason"] == "FailJobSetFailurePolicyAction"
    assert jobset.restarts == 0
    assert "The step that made this TrainJob is gone." in jobset.pods[0].text()
    assert all(pod.code is not None for pod in jobset.pods)
    assert list(small_project.workspace.glob("checkpoints/*/step-*"))
