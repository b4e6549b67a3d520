"""What Kubernetes is told about each step, beside the pipeline spec: volumes, nodes, secrets.

The messages are those of the package kfp-kubernetes (KubernetesExecutorConfig).
"""

from typing import Any

from pipeline.kubeflow.package import Document
from pipeline.kubeflow.settings import Secret, Step, Target, Volume


def executor_config(target: Target, component: str, is_in_workspace: bool) -> Document:
    """The KubernetesExecutorConfig of a step; empty if there is nothing to say.

    Args:
      target: the cluster's settings.
      component: the step's component.
      is_in_workspace: whether it uses the registry or checkpoints.
    """
    step = target.step(component)
    volumes = list(step.volumes)
    if is_in_workspace and target.workspace.claim:
        volumes.append(Volume(claim=target.workspace.claim, path=target.workspace.path))
    config: Document = {
        "pvcMount": [_mount(volume) for volume in volumes],
        "secretAsEnv": [_secret(secret) for secret in step.secrets],
        "nodeSelector": step.node_selector and {"labels": step.node_selector},
        "tolerations": [t.model_dump(exclude_none=True) for t in step.tolerations],
        "podMetadata": _metadata(step),
        "activeDeadlineSeconds": step.timeout_seconds and str(step.timeout_seconds),
        "emptyDirMounts": step.shared_memory and [_shared_memory(step.shared_memory)],
        "imagePullPolicy": target.image_pull_policy,
        "imagePullSecret": [
            {"secretName": name, "secretNameParameter": _constant(name)}
            for name in target.image_pull_secrets
        ],
    }
    return {name: value for name, value in config.items() if value}


def _constant(value: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}


def _mount(volume: Volume) -> Document:
    return {"mountPath": volume.path, "pvcNameParameter": _constant(volume.claim)}


def _secret(secret: Secret) -> Document:
    return {
        "secretName": secret.name,
        "secretNameParameter": _constant(secret.name),
        "keyToEnv": [{"secretKey": key, "envVar": name} for key, name in secret.keys.items()],
    }


def _metadata(step: Step) -> Document:
    given = {"labels": step.labels, "annotations": step.annotations}
    return {name: value for name, value in given.items() if value}


def _shared_memory(size: str) -> Document:
    """KFP accepts `enabledSharedMemory`, and ignores it."""
    return {"volumeName": "dshm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": size}
