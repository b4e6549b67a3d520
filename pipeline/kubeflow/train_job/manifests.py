"""What the cluster must have before a step makes a TrainJob: a TrainingRuntime, and rights.

`kubectl apply -n NAMESPACE -f build/<pipeline>.cluster.yaml` puts it there. What changes with each
package (image, command, resources, number of workers) is the TrainJob's own: see `job`.

https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/apis/trainer/v1alpha1/trainingruntime_types.go
Not run on a cluster.
"""

import hashlib
import json
from typing import Any

import yaml

from components.errors import PipelineStop
from components.trainer.core.worker import UNUSABLE
from pipeline.config import Config
from pipeline.kubeflow.package import Document
from pipeline.kubeflow.settings import Step, Target, Volume
from pipeline.kubeflow.train_job import names, published

UNUSABLE_CODES = (1, UNUSABLE)
"""Exit codes of a worker when a person has something to put right."""
_SERVICE_ACCOUNT = "pipeline-runner"
"""KFP's own, where the settings name none."""
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What KFP gives to the containers of its steps."""
_NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""A sidecar would never end, and the pod with it. KFP says the same for its steps."""


def text(config: Config, target: Target) -> str:
    """The manifests as YAML.

    Raises:
      PipelineStop: the settings lack what several workers need.
    """
    runtime = training_runtime(config, target)
    published.check(runtime)
    note = "# For the namespace that the steps run in: kubectl apply -n NAMESPACE -f THIS_FILE\n"
    return note + yaml.safe_dump_all([runtime, *_rights(target)], sort_keys=False, width=100)


def fingerprint(config: Config, target: Target) -> str:
    """Identifies the TrainingRuntime, so that a step sees whether the cluster has another one."""
    spec = json.dumps(_spec(config, target), sort_keys=True)
    return hashlib.sha256(spec.encode()).hexdigest()[:16]


def training_runtime(config: Config, target: Target) -> Document:
    """The runtime: how the pods of the workers are made, and when they start again.

    Raises:
      PipelineStop: the settings lack what several workers need.
    """
    if target.workspace.claim is None:
        raise PipelineStop(
            "training.strategy is 'multi_worker', whose workers share the workspace on a volume, "
            "but the cluster's settings have workspace.claim: null. Name a PersistentVolumeClaim "
            "that several pods can mount (ReadWriteMany), or set training.strategy=auto."
        )
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": "TrainingRuntime",
        "metadata": {
            "name": target.train_job.runtime,
            "labels": names.LABELS | {f"{names.GROUP}/framework": "tensorflow"},
            "annotations": {names.FINGERPRINT: fingerprint(config, target)},
        },
        "spec": _spec(config, target),
    }


def _spec(config: Config, target: Target) -> Document:
    """One pod gone means all of them: a worker cannot rejoin, the group starts again together.

    So no pod restarts in place (`Never`), none is replaced alone (`backoffLimit: 0`), and JobSet
    makes all anew. But what a person has to put right (exit codes 1 and 2) would end the same
    again: that fails the Job with the reason PodFailurePolicy, and the rule ends the JobSet.
    """
    rule = {
        "name": "unusable",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    failure_policy = {"maxRestarts": config.training.model_dump()["restarts"], "rules": [rule]}
    network = {"enableDNSHostnames": True, "publishNotReadyAddresses": True}
    return {
        "mlPolicy": {"numNodes": 1},  # each TrainJob says its own number
        "template": {
            "spec": {
                "network": network,
                "failurePolicy": failure_policy,
                "replicatedJobs": [_workers(target)],
            }
        },
    }


def _workers(target: Target) -> Document:
    codes = {"containerName": names.NODE, "operator": "In", "values": list(UNUSABLE_CODES)}
    settings = target.step("Trainer")
    pod = {
        "metadata": {
            "labels": names.LABELS | settings.labels | _NO_SIDECAR,
            "annotations": settings.annotations | _NO_SIDECAR,
        },
        "spec": _pod(target, settings),
    }
    job = {
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": codes}]},
        "template": pod,
    }
    template = {"metadata": {"labels": names.CONTROLLER_LABELS}, "spec": job}
    return {"name": names.NODE, "replicas": 1, "template": template}


def _pod(target: Target, settings: Step) -> Document:
    volumes, mounts = _volumes(target, settings)
    container = {
        "name": names.NODE,
        "imagePullPolicy": target.image_pull_policy,
        "securityContext": _SECURITY,
        "volumeMounts": mounts,
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,  # workers ask the cluster for nothing
        "serviceAccountName": target.service_account,
        "imagePullSecrets": [{"name": name} for name in target.image_pull_secrets],
        "nodeSelector": settings.node_selector,
        "tolerations": [each.model_dump(exclude_none=True) for each in settings.tolerations],
        "containers": [_without_empty(container)],
        "volumes": volumes,
    }
    return _without_empty(pod)


def _without_empty(given: Document) -> Document:
    return {name: value for name, value in given.items() if value not in (None, [], {})}


def _volumes(target: Target, settings: Step) -> tuple[list[Any], list[Any]]:
    """The volumes of a pod, and where its container has them."""
    assert target.workspace.claim
    workspace = Volume(claim=target.workspace.claim, path=target.workspace.path)
    sources, mounts = [], []
    for number, volume in enumerate([workspace, *settings.volumes]):
        claim = {"claimName": volume.claim}
        sources.append({"name": f"volume-{number}", "persistentVolumeClaim": claim})
        mounts.append({"name": f"volume-{number}", "mountPath": volume.path})
    if settings.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": settings.shared_memory}
        sources.append({"name": "dshm", "emptyDir": memory})
        mounts.append({"name": "dshm", "mountPath": "/dev/shm"})
    return sources, mounts


def _rights(target: Target) -> list[Document]:
    """What the step's service account may do. The binding's subject is of its own namespace."""
    name = f"{target.train_job.runtime}-train-jobs"
    metadata = {"name": name, "labels": names.LABELS}
    rules = [
        _rule(names.GROUP, "trainjobs", "create", "get", "delete"),
        _rule(names.GROUP, "trainingruntimes", "get"),
        _rule("", "pods", "list"),
        _rule("", "pods/log", "get"),
    ]
    api = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": target.service_account or _SERVICE_ACCOUNT}
    reference = {"apiGroup": api, "kind": "Role", "name": name}
    role = {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "subjects": [account],
        "roleRef": reference,
    }
    return [role, binding]


def _rule(group: str, resource: str, *verbs: str) -> Document:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
