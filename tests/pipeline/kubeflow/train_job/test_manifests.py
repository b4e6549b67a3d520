"""The manifests and the TrainJob, by Kubeflow Trainer's published models and by what they say."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import PipelineStop
from pipeline.kubeflow.train_job import job, manifests, names, published, worker
from tests.pipeline.kubeflow.train_job import scripted
from tests.pipeline.kubeflow.train_job.compiled import Compiled

_TRAINER: dict[str, Any] = {
    "image": "registry.example/small-gpu:1",
    "cpu": "2",
    "memory_limit": "8Gi",
    "accelerator": {"type": "nvidia.com/gpu", "count": 2},
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "volumes": [{"claim": "data", "path": "/mnt/data"}],
    "shared_memory": "1Gi",
    "env": {"A": "1"},
    "secrets": [{"name": "tracking", "keys": {"token": "TOKEN"}}],
    "labels": {"team": "taxi"},
    "timeout_seconds": 3600,
}


def _runtime(tmp_path: Path, **settings: Any) -> Any:
    return manifests.training_runtime(
        scripted.config(tmp_path), scripted.target(tmp_path, **settings)
    )


def _train_job(tmp_path: Path, **settings: Any) -> Any:
    described = job.described(scripted.config(tmp_path), scripted.target(tmp_path, **settings))
    return job.manifest(described, "trainer-0", "/mnt/workspace/train-jobs/trainer-0")


def test_trainer_understands_every_field(tmp_path: Path) -> None:
    published.check(_runtime(tmp_path, steps={"Trainer": _TRAINER}, image_pull_secrets=["pull"]))
    published.check(_train_job(tmp_path, steps={"Trainer": _TRAINER}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "trainer", "numberOfNodes"), 2),
        (("spec", "trainer", "numNodes"), "2"),
        (("spec", "runtimeRef", "name"), None),
        (("metadata", "owner"), "me"),
    ],
)
def test_a_field_that_trainer_lacks_is_noticed(
    tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    changed = copy.deepcopy(_train_job(tmp_path))
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(ValueError):
        published.check(changed)


def test_the_pods_have_what_the_settings_say_of_the_trainer(tmp_path: Path) -> None:
    settings = {"steps": {"Trainer": _TRAINER}, "service_account": "trainer"}
    (workers,) = _runtime(tmp_path, **settings)["spec"]["template"]["spec"]["replicatedJobs"]
    template = workers["template"]["spec"]["template"]
    pod = template["spec"]
    assert template["metadata"]["labels"]["team"] == "taxi"
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["serviceAccountName"] == "trainer"
    mounts = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts == {str(tmp_path), "/mnt/data", "/dev/shm"}
    trainer = _train_job(tmp_path, **settings)["spec"]["trainer"]
    assert trainer["image"] == "registry.example/small-gpu:1"
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "2"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "2"},
    }
    secret = {"secretKeyRef": {"name": "tracking", "key": "token"}}
    assert trainer["env"][:2] == [
        {"name": "A", "value": "1"},
        {"name": "TOKEN", "valueFrom": secret},
    ]
    assert _train_job(tmp_path, **settings)["spec"]["activeDeadlineSeconds"] == 3600


def test_the_fingerprint_is_of_what_a_trainjob_cannot_say(tmp_path: Path) -> None:
    config = scripted.config(tmp_path)

    def fingerprint(**settings: Any) -> str:
        return manifests.fingerprint(config, scripted.target(tmp_path, **settings))

    volumes = {"volumes": [{"claim": "data", "path": "/mnt/data"}]}
    assert fingerprint(image="other:2", train_job={"nodes": 4}) == fingerprint()
    assert fingerprint(steps={"Trainer": volumes}) != fingerprint()


def test_without_a_claim_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(
        PipelineStop, match=r"workspace\.claim: null\. Name a PersistentVolumeClaim"
    ):
        _train_job(tmp_path, workspace={"claim": None, "path": "/gcs/workspace"})


def test_a_batch_that_the_replicas_cannot_share_is_refused_when_compiling(tmp_path: Path) -> None:
    gpus = {"accelerator": {"type": "nvidia.com/gpu", "count": 3}}
    with pytest.raises(PipelineStop, match="is 64, which the 6 replicas of 2 workers"):
        _train_job(tmp_path, steps={"Trainer": gpus})


def test_each_worker_finds_its_place_from_its_index(tmp_path: Path) -> None:
    trainer = _train_job(tmp_path, train_job={"nodes": 4, "port": 4000})["spec"]["trainer"]
    env = {one["name"]: one["value"] for one in trainer["env"]}
    found = json.loads(worker.tf_config(env | {"JOB_COMPLETION_INDEX": "2"}))
    addresses = [f"trainer-0-node-0-{n}.trainer-0:4000" for n in range(4)]
    assert found == {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 2}}


def test_a_retry_has_the_same_name_and_another_execution_has_not() -> None:
    file = "/minio/mlpipeline/v2/artifacts/taxi/run-1/trainer/{}/output_metadata.json"
    first, retried, other = (names.job("Trainer", file.format(n)) for n in ("a", "a", "b"))
    assert first == retried != other
    longest = f"{first}-node-0-9999-abcde"  # the pod's name is a DNS label, too
    assert len(longest) <= 63
    assert first.replace("-", "").isalnum()


def test_compiling_writes_the_manifests_and_spares_the_waiting_step(
    small_project: Compiled,
) -> None:
    runtime, role, binding = yaml.safe_load_all(small_project.manifests)
    published.check(runtime)
    assert (role["kind"], binding["kind"]) == ("Role", "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "pipeline-runner"}]
    container = small_project.package["deploymentSpec"]["executors"]["exec-trainer"]["container"]
    assert container["resources"] == {
        "resourceCpuRequest": "100m",
        "resourceMemoryRequest": "512Mi",
    }
    described = small_project.step(Path("/outputs")).described["train_job"]
    assert described["spec"]["trainer"]["resourcesPerNode"] == {
        "requests": {"cpu": "100m", "memory": "4Gi"},
        "limits": {"nvidia.com/gpu": "1"},
    }
