"""The Trainer's step with several workers: its manifests, and trainings with real workers."""

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api import models

from components.errors import PipelineStop
from pipeline import loading
from tests import small
from tests.pipeline.kubeflow.api import served
from tests.pipeline.kubeflow.launched import Cluster, Run

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
    assert runtime["metadata"]["name"].startswith("ours-")
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
    assert made["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
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


def test_another_setting_of_the_pods_is_another_runtime():
    """So that a TrainJob never runs with what was applied for another package."""
    from pipeline.kubeflow.train_job import job

    config = loading.load("automated", MULTI)
    names = {
        job.described(config, target(**changes))["spec"]["runtimeRef"]["name"]
        for changes in ({}, {"image": "other"}, {"service_account": "other"})
    }
    assert len(names) == 2  # the image is the TrainJob's own


class Answers:
    """What a namespace's API answers about a TrainJob; `work` is what happens when one is made."""

    def __init__(self, work):
        self.work, self.job, self.conditions = work, None, []

    def ended(self, kind, reason):
        self.conditions = [{"type": kind, "status": "True", "reason": reason, "message": "ended"}]

    def answer(self, method, path, query, body):
        if method == "POST":
            self.job = body
            threading.Thread(target=self.work, args=[self, body], daemon=True).start()
        elif self.job is None:
            return 404, json.dumps({"message": "not found"}), {}
        elif method == "DELETE":
            self.job = None
            return 200, "{}", {}
        return 200, json.dumps({**self.job, "status": {"conditions": self.conditions}}), {}


@contextmanager
def cluster_of(answers: Answers, folder: Path):
    """Serves them; yields a kube-config that leads there."""
    with served(answers) as host:
        config = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": host}}],
            "users": [{"name": "c", "user": {}}],
            "contexts": [
                {"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "steps"}}
            ],
        }
        path = folder / "kube-config"
        path.write_text(yaml.safe_dump(config))
        yield path


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ((404, "404 page not found"), "has no Kubeflow Trainer v2, which runs the workers"),
        (
            (403, '{"message": "no such TrainingRuntime"}'),
            "no such TrainingRuntime. Run: kubectl apply -n steps -f build/x.cluster.yaml",
        ),
    ],
)
def test_a_cluster_that_refuses_the_workers(refusal, told, tmp_path, monkeypatch):
    from pipeline.kubeflow.train_job import execution

    answers = Answers(None)
    answers.answer = lambda *_: (*refusal, {})
    with cluster_of(answers, tmp_path) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        cluster = execution.Cluster("trainer-1", tmp_path, "x.cluster.yaml")
        with pytest.raises(PipelineStop, match=told):
            cluster.create({})


def start_workers(body, image: Path) -> list["subprocess.Popen[str]"]:
    """The pods of a TrainJob, as processes of this machine that find each other there."""
    trainer = body["spec"]["trainer"]
    variables = {one["name"]: one["value"] for one in trainer["env"]}
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(trainer["numNodes"])]
    addresses = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    variables |= {"TRAIN_JOB_ADDRESSES": addresses, "CUDA_VISIBLE_DEVICES": "-1"}
    return [
        subprocess.Popen(
            [sys.executable, *trainer["command"][1:], *trainer["args"]],
            cwd=image,
            env=small.environment_of_a_copy() | variables | {"JOB_COMPLETION_INDEX": str(number)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(trainer["numNodes"])
    ]


@pytest.fixture(scope="module")
def transformed(tmp_path_factory) -> Run:
    """A run as far as Transform, of a project that trains with two workers."""
    training = small.SETTINGS["training"] | {"strategy": "multi_worker", "workers": 2}
    often = {"checkpoints": {"every_steps": 10}}
    folder = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(folder, {"training": training | often}, train_job={"silence_seconds": 20})
    run = Run(cluster, cluster.compile(), {"data_path": str(cluster.data)})
    run.good(*BEFORE)
    return run


def trainer(run: Run, tmp_path, work, **values):
    """The Trainer's step, with what happens to its TrainJob."""
    found = Run(run.cluster, run.package, run.values | values)
    found.made = dict(run.made)
    answers = Answers(work)
    with cluster_of(answers, tmp_path) as config:
        done = found.step("trainer", KUBECONFIG=str(config), KFP_POD_NAME="p", KFP_POD_UID="1")
    assert answers.job is None  # deleted
    assert list(run.cluster.workspace.glob("train-jobs/*")) == []
    return found, done


def record(run: Run):
    return json.loads((run.output("trainer", "model") / "training.json").read_text())


@pytest.mark.prove
def test_workers_train_and_a_killed_one_starts_all_again_to_the_same_bits(transformed, tmp_path):
    workspace, image = transformed.cluster.workspace, transformed.cluster.project.folder
    codes = []

    def to_the_end(answers, body):
        assert body["metadata"]["ownerReferences"][0]["uid"] == "1"
        codes.append([worker.wait() for worker in start_workers(body, image)])
        answers.ended("Failed" if any(codes[-1]) else "Complete", "AllJobsCompleted")

    def with_a_lost_one(answers, body):
        workers = start_workers(body, image)
        while not any(workspace.glob("checkpoints/*/step-*")):
            time.sleep(0.05)
        workers[1].kill()
        codes.append([worker.wait() for worker in workers])
        to_the_end(answers, body)

    lost, done = trainer(transformed, tmp_path, with_a_lost_one, steps=300)
    assert done.code == 0, done.log
    assert codes[0][0] not in (0, 1, 2)  # which would not start the group again
    assert codes[1] == [0, 0]
    assert record(lost)["checkpoints"]["resumed_at"]
    assert record(lost)["replicas"] == 2
    assert lost.made["trainer"]["model"]["uri"].startswith("minio://")
    assert "Trainer is done." in done.log  # the chief's
    whole, _ = trainer(transformed, tmp_path, to_the_end, steps=300)
    assert record(whole)["fingerprint"] == record(lost)["fingerprint"]


@pytest.mark.prove
def test_a_training_that_cannot_be_fails_with_its_reason(transformed, tmp_path):
    codes = []

    def work(answers, body):
        workers = start_workers(body, transformed.cluster.project.folder)
        codes.append(workers[0].wait())
        workers[1].kill()
        answers.ended("Failed", "FailJobSetFailurePolicyAction")

    _, done = trainer(transformed, tmp_path, work, global_batch_size=63)
    assert (done.code, codes[0] in (1, 2)) == (1, True)
    assert done.last_line.startswith("Trainer failed: ")
    assert "63" in done.last_line


@pytest.mark.prove
def test_workers_whose_step_is_gone_end_and_are_not_started_again(tmp_path, transformed):
    """Its pod is still there, so nothing deletes the TrainJob: as when only its container ends."""
    from pipeline.kubeflow import step
    from pipeline.kubeflow.train_job import execution, job

    run = Run(transformed.cluster, transformed.package, transformed.values)
    run.made = dict(transformed.made)
    variables = {one["name"]: one["value"] for one in run._container("trainer")["env"]}
    told = json.loads(variables["PIPELINE_STEP"])
    settings = told.pop("train_job") | {"silence_seconds": 2}
    stores = step.Stores(f"{transformed.cluster.folder}/")
    execution.stage(tmp_path / "job", told, run.executor_input("trainer"), stores)
    body = job.manifest(settings, "trainer-1", str(tmp_path / "job"))
    workers = start_workers(body, transformed.cluster.project.folder)
    assert [worker.wait(120) for worker in workers] == [1, 1]
    assert "step that made this TrainJob is gone" in (tmp_path / "job" / "log.0").read_text()
