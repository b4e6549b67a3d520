"""The TrainJob: what a package decides, and what only the running step knows.

https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/apis/trainer/v1alpha1/trainjob_types.go
"""

import copy
import os
from typing import Any

from components.errors import PipelineStop
from pipeline.config import Config
from pipeline.kubeflow.package import Document
from pipeline.kubeflow.settings import Step, Target
from pipeline.kubeflow.train_job import manifests, names, published

_COMMAND = ["python", "-m", "pipeline.kubeflow.train_job.worker"]
_OF_THE_WAITING_STEP = {"cache", "retry", "timeout_seconds"}


def manifests_file(pipeline: str) -> str:
    """The name of the file with the cluster's manifests, beside the package."""
    return f"{pipeline}.cluster.yaml"


def described(config: Config, target: Target) -> Document:
    """What the package tells the Trainer's step: `train_job` in its JSON.

    Raises:
      PipelineStop: the settings lack what several workers need.
    """
    settings = target.train_job
    _check_batch(config, target)
    manifests.training_runtime(config, target)
    found = {
        "spec": _spec(target),
        "pipeline": config.name,
        "fingerprint": manifests.fingerprint(config, target),
        "manifests": manifests_file(config.name),
        "folder": f"{target.workspace.path}/train-jobs",
        "port": settings.port,
        "start_seconds": settings.start_seconds,
        "silence_seconds": settings.silence_seconds,
    }
    published.check(manifest(found, "trainer-0", "/folder"))
    return found


def _check_batch(config: Config, target: Target) -> None:
    accelerator, nodes = target.step("Trainer").accelerator, target.train_job.nodes
    replicas = nodes * (accelerator.count if accelerator else 1)
    if config.training.global_batch_size % replicas:
        raise PipelineStop(
            f"training.global_batch_size is {config.training.global_batch_size}, which the "
            f"{replicas} replicas of {nodes} workers (train_job.nodes) cannot share evenly."
        )


def of_the_waiting_step(target: Target) -> Target:
    """The settings for the step's own pod: the defaults, as the workers have the Trainer's."""
    own = target.steps.get("Trainer", Step())
    kept = own.model_fields_set & _OF_THE_WAITING_STEP
    waiting = Step(**own.model_dump(include=kept))
    return target.model_copy(update={"steps": target.steps | {"Trainer": waiting}})


def _spec(target: Target) -> Document:
    step = target.step("Trainer")
    secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in step.secrets
        for key, variable in secret.keys.items()
    ]
    trainer: Document = {
        "image": step.image or target.image,
        "command": _COMMAND,
        "env": [{"name": n, "value": v} for n, v in sorted(step.env.items())] + secrets,
        "numNodes": target.train_job.nodes,
    }
    if resources := _resources(step):
        trainer["resourcesPerNode"] = resources
    reference = {
        "apiGroup": names.GROUP,
        "kind": "TrainingRuntime",
        "name": target.train_job.runtime,
    }
    spec = {"runtimeRef": reference, "trainer": trainer}
    return spec | ({"activeDeadlineSeconds": step.timeout_seconds} if step.timeout_seconds else {})


def _resources(step: Step) -> Document:
    devices = {step.accelerator.type: str(step.accelerator.count)} if step.accelerator else {}
    wanted = {
        "requests": {"cpu": step.cpu, "memory": step.memory},
        "limits": {"cpu": step.cpu_limit, "memory": step.memory_limit, **devices},
    }
    given = {
        kind: {name: amount for name, amount in amounts.items() if amount}
        for kind, amounts in wanted.items()
    }
    return {kind: amounts for kind, amounts in given.items() if amounts}


def manifest(settings: Document, name: str, folder: str) -> Document:
    """The TrainJob as it is created.

    Args:
      settings: what `described` returned.
      name: the job's.
      folder: on the workspace volume, with what the workers need.
    """
    spec = copy.deepcopy(settings["spec"])
    trainer = spec["trainer"]
    addresses = names.addresses(name, trainer["numNodes"], settings["port"])
    trainer["args"] = [folder]
    trainer["env"] += [
        {"name": names.ADDRESSES, "value": ",".join(addresses)},
        {"name": names.SILENCE, "value": str(settings["silence_seconds"])},
    ]
    metadata: dict[str, Any] = {
        "name": name,
        "labels": names.LABELS | {"app.kubernetes.io/component": "trainer"},
        "annotations": {"tfx-workflow-template/pipeline": settings["pipeline"]},
    }
    if owner := _this_pod():
        metadata["ownerReferences"] = [owner]
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": spec,
    }


def _this_pod() -> Document | None:
    """The step's own pod, as KFP tells it: when it is deleted, Kubernetes deletes the TrainJob."""
    name, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid} if name and uid else None
