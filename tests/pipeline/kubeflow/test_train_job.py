"""The Trainer's step with several workers: its manifests, and trainings with real workers."""

import json
import signal
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api import models

from components.errors import PipelineStop
from pipeline import loading
from tests import small
from tests.pipeline.kubeflow.launched import Cluster, Run
from tests.pipeline.kubeflow.trainer_api import Cluster as Trainers
from tests.pipeline.kubeflow.trainer_api import environment, served, until

pytest.importorskip("components.multi_worker.part")

BEFORE = ("curated-schema", "example-gen", "transform")
MULTI = ["training.strategy=multi_worker"]
TARGET = {
    "image": "registry.example/small:1",
    "pipeline_root": "minio://mlpipeline/v2/artifacts",
    "service_account": "default-editor",
    "workspace": {"claim": "workspace", "path": "/mnt/workspace"},
    "defaults": {"cpu": "100m", "run_as_user": 12345},
    "steps": {
        "Trainer": {
            "accelerator": {"type": "nvidia.com/gpu", "count": 2},
            "memory": "4Gi",
            "secrets": [{"name": "s", "keys": {"k": "K_FILE"}}],
            "shared_memory": "1Gi",
        }
    },
    "train_job": {"nodes": 4, "runtime": "ours"},
}


def target(**changes):
    from pipeline.kubeflow.settings import Target

    return Target.model_validate(TARGET | changes)


def test_the_settings_reach_the_runtime_the_rights_and_the_job():
    from pipeline.kubeflow.train_job import job

    config = loading.load("automated", [*MULTI, "training.restarts=5"])
    runtime, role, binding = yaml.safe_load_all(job.manifests(config, target()))
    assert runtime["metadata"]["name"] == "ours"
    spec = runtime["spec"]["template"]["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 5
    pod = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "default-editor"
    [container] = pod["containers"]
    assert container["securityContext"]["runAsNonRoot"]
    assert [one["mountPath"] for one in container["volumeMounts"]] == ["/mnt/workspace", "/dev/shm"]
    assert binding["subjects"][0]["name"] == "default-editor"
    assert binding["roleRef"]["name"] == role["metadata"]["name"] == "ours-train-jobs"
    made = job.manifest(job.described(config, target()), "trainer-1", "/mnt/workspace/x")
    trainer = made["spec"]["trainer"]
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "2"}
    assert trainer["resourcesPerNode"]["requests"] == {"cpu": "100m", "memory": "4Gi"}
    assert trainer["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "s", "key": "k"}
    [addresses] = [one["value"] for one in trainer["env"] if one["name"] == job.ADDRESSES]
    assert addresses.split(",")[3] == "trainer-1-node-0-3.trainer-1:2222"
    for document in (runtime, made):  # from_dict leaves out what Kubeflow Trainer does not know
        model = getattr(models, f"TrainerV1alpha1{document['kind']}")
        assert model.from_dict(document).to_dict() == document


def test_settings_with_which_several_workers_cannot_train():
    from pipeline.kubeflow.train_job import job

    with pytest.raises(PipelineStop, match="ReadWriteMany"):
        no_claim = {"claim": None, "path": "/mnt/workspace"}
        job.described(loading.load("automated", MULTI), target(workspace=no_claim))
    with pytest.raises(PipelineStop, match="8 replicas of 4 workers"):
        job.described(
            loading.load("automated", [*MULTI, "training.global_batch_size=252"]), target()
        )


@pytest.fixture(scope="module")
def transformed(tmp_path_factory) -> Run:
    """A run as far as Transform, of a project that trains with two workers."""
    training = small.SETTINGS["training"] | {"strategy": "multi_worker", "workers": 2}
    often = {"checkpoints": {"every_steps": 10}}
    silence = {"silence_seconds": 20}
    folder = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(folder, {"training": training | often}, train_job=silence)
    run = Run(cluster, cluster.compile(), {"data_path": str(cluster.data)})
    run.good(*BEFORE)
    return run


@pytest.fixture
def trainers(transformed, tmp_path):
    image = transformed.cluster.project.folder
    made = Trainers(image)
    made.apply((image / "build" / "small.cluster.yaml").read_text())
    with served(made, tmp_path) as config:
        yield made, environment(config)


def again(run: Run, **values) -> Run:
    found = Run(run.cluster, run.package, run.values | values)
    found.made = dict(run.made)
    return found


def record(run: Run):
    return json.loads((run.output("trainer", "model") / "training.json").read_text())


@pytest.mark.prove
def test_workers_train_and_a_killed_one_starts_all_again_to_the_same_bits(transformed, trainers):
    cluster, variables = trainers
    whole = again(transformed, steps=300)
    done = whole.step("trainer", **variables)
    assert done.code == 0, done.log
    assert record(whole)["replicas"] == 2
    assert whole.made["trainer"]["model"]["uri"].startswith("minio://")
    assert "the training is done" in "".join(cluster.pods[1].lines)
    assert not cluster.jobs
    run = again(transformed, steps=300)
    process = run.start("trainer", **variables)
    workspace: Path = run.cluster.workspace
    until(lambda: any(workspace.glob("checkpoints/*/step-*")) or process.poll() is not None)
    cluster.pods[1].process.send_signal(signal.SIGKILL)
    log, _ = process.communicate()
    assert run.ended("trainer", process.returncode, log).code == 0, log
    assert cluster.restarts == 1
    assert record(run)["checkpoints"]["resumed_at"]
    assert record(run)["fingerprint"] == record(whole)["fingerprint"]
    assert list(workspace.glob("train-jobs/*")) == []


@pytest.mark.prove
def test_a_training_that_cannot_be_fails_with_its_reason(transformed, trainers):
    cluster, variables = trainers
    done = again(transformed, global_batch_size=63).step("trainer", **variables)
    assert done.code == 1
    assert done.last_line.startswith("Trainer failed: ")
    assert "63" in done.last_line
    assert cluster.restarts == 0
    assert not cluster.jobs


@pytest.mark.prove
def test_workers_without_their_step_end_and_are_not_started_again(tmp_path, transformed, trainers):
    """The step is killed so that nothing deletes the TrainJob: as when only its container ends."""
    cluster, variables = trainers
    process = again(transformed, steps=10**6).start("trainer", **variables)
    until(lambda: any(transformed.cluster.workspace.glob("train-jobs/*/heartbeat")))
    until(lambda: cluster.jobs)
    process.kill()
    [job] = cluster.jobs.values()
    until(lambda: job["status"]["conditions"], 200)
    assert job["status"]["conditions"][0]["reason"] == "FailJobSetFailurePolicyAction"
    assert cluster.restarts == 0
    assert "The step that made this TrainJob is gone." in "".join(cluster.pods[0].lines)


@pytest.mark.prove
def test_without_a_runtime_the_step_says_what_to_apply(transformed, tmp_path):
    with served(Trainers(transformed.cluster.project.folder), tmp_path) as config:
        done = again(transformed).step("trainer", **environment(config))
    assert done.code == 1
    assert "has no TrainingRuntime 'tensorflow'. Run: kubectl apply -n steps -f" in done.last_line
