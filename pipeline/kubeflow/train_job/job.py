"""The TrainJob, and what the cluster has to have for it (`cluster.yaml`).

https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/apis/trainer/v1alpha1/trainjob_types.go
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml

from components.errors import PipelineStop
from pipeline.config import Config
from pipeline.kubeflow.settings import OnVertex, Step, Target, Volume

Document = dict[str, Any]
GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
ADDRESSES = "TRAIN_JOB_ADDRESSES"
"""Environment variable of each pod: `host:port` of all workers, in order, with commas between."""
SILENCE = "TRAIN_JOB_SILENCE_SECONDS"
"""Environment variable of each pod: it ends when the step has said nothing for so long."""


def manifests_file(pipeline: str) -> str:
    """The name of the file with the cluster's manifests, beside the package."""
    return f"{pipeline}.cluster.yaml"


def manifests(config: Config, target: Target) -> str:
    """The manifests as YAML, for the namespace that the steps run in.

    The runtime's name ends with a hash of its content: with other settings it is another runtime.
    """
    text = Path(__file__).with_name("cluster.yaml").read_text()
    runtime, role, binding = yaml.safe_load_all(text)
    jobset = runtime["spec"]["template"]["spec"]
    jobset["failurePolicy"]["maxRestarts"] = config.training.model_dump()["restarts"]
    _fill(jobset["replicatedJobs"][0]["template"]["spec"]["template"], target)
    spec = json.dumps(runtime["spec"], sort_keys=True)
    digest = hashlib.sha256(spec.encode()).hexdigest()[:8]
    runtime["metadata"]["name"] = f"{target.train_job.runtime}-{digest}"
    rights = f"{target.train_job.runtime}-train-jobs"
    role["metadata"]["name"] = binding["metadata"]["name"] = binding["roleRef"]["name"] = rights
    binding["subjects"][0]["name"] = target.service_account or binding["subjects"][0]["name"]
    return yaml.safe_dump_all([runtime, role, binding], sort_keys=False, width=100)


def _fill(template: Document, target: Target) -> None:
    """Puts what the settings say of the Trainer into the pods' template."""
    step, pod = target.step("Trainer"), template["spec"]
    [container] = pod["containers"]
    template["metadata"]["labels"] |= step.labels
    template["metadata"]["annotations"] |= step.annotations
    assert target.workspace.claim  # else there is no package
    claims = [Volume(claim=target.workspace.claim, path=target.workspace.path), *step.volumes]
    volumes: list[tuple[str, Document]] = [
        (each.path, {"persistentVolumeClaim": {"claimName": each.claim}}) for each in claims
    ]
    if step.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": step.shared_memory}
        volumes.append(("/dev/shm", {"emptyDir": memory}))
    pod |= _set(
        serviceAccountName=target.service_account,
        imagePullSecrets=[{"name": name} for name in target.image_pull_secrets],
        nodeSelector=step.node_selector,
        tolerations=[taint.model_dump(exclude_none=True) for taint in step.tolerations],
        volumes=[{"name": f"volume-{n}"} | kind for n, (_, kind) in enumerate(volumes)],
    )
    mounts = [{"name": f"volume-{n}", "mountPath": path} for n, (path, _) in enumerate(volumes)]
    container |= _set(imagePullPolicy=target.image_pull_policy, volumeMounts=mounts)
    container["securityContext"] |= _set(
        runAsUser=step.run_as_user,
        runAsGroup=step.run_as_group,
        runAsNonRoot=None if step.run_as_user is None else step.run_as_user != 0,
    )


def _set(**fields: Any) -> Document:
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def described(config: Config, target: Target) -> Document:
    """What the package tells the Trainer's step.

    Raises:
      PipelineStop: the settings lack what several workers need.
    """
    settings, step = target.train_job, target.step("Trainer")
    batch = config.training.global_batch_size
    replicas = settings.nodes * (step.accelerator.count if step.accelerator else 1)
    if isinstance(target, OnVertex):
        raise PipelineStop("training.strategy=multi_worker is not compiled for Vertex AI.")
    if target.workspace.claim is None:
        raise PipelineStop(
            "training.strategy is 'multi_worker', whose workers share the workspace on a volume, "
            "but the cluster's settings have workspace.claim: null. Name a PersistentVolumeClaim "
            "that several pods can mount (ReadWriteMany), or set training.strategy=auto."
        )
    if batch % replicas:
        raise PipelineStop(
            f"training.global_batch_size is {batch}, which the {replicas} replicas of "
            f"{settings.nodes} workers (train_job.nodes) cannot share evenly."
        )
    runtime = next(yaml.safe_load_all(manifests(config, target)))["metadata"]["name"]
    reference = {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": runtime}
    deadline = _set(activeDeadlineSeconds=step.timeout_seconds)
    return {
        "spec": {"runtimeRef": reference, "trainer": _trainer(step, target)} | deadline,
        "manifests": manifests_file(config.name),
        "folder": f"{target.workspace.path}/train-jobs",
        **settings.model_dump(include={"port", "start_seconds", "silence_seconds"}),
    }


def _trainer(step: Step, target: Target) -> Document:
    secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in step.secrets
        for key, variable in secret.keys.items()
    ]
    devices = {step.accelerator.type: str(step.accelerator.count)} if step.accelerator else {}
    resources = _set(
        requests=_set(cpu=step.cpu, memory=step.memory),
        limits=_set(cpu=step.cpu_limit, memory=step.memory_limit, **devices),
    )
    return {
        "image": step.image,
        "command": ["python", "-m", "pipeline.kubeflow.train_job.worker"],
        "env": [{"name": n, "value": v} for n, v in sorted(step.env.items())] + secrets,
        "numNodes": target.train_job.nodes,
    } | _set(resourcesPerNode=resources)


def name_of(component: str, output_file: str) -> str:
    """The name of a step's TrainJob: a DNS label, and the same when the step is retried.

    `output_file` of KFP's executor input lies in a folder of one execution of one step in one run.
    """
    return f"{component.lower()}-{hashlib.sha256(output_file.encode()).hexdigest()[:20]}"


def manifest(settings: Document, name: str, folder: str) -> Document:
    """The TrainJob as it is created.

    Its workers find each other by JobSet's host names, below the headless service of its name, and
    what they need in `folder`. It is owned by the step's pod: Kubernetes deletes it with that.
    """
    trainer, port = settings["spec"]["trainer"], settings["port"]
    addresses = [f"{name}-node-0-{n}.{name}:{port}" for n in range(trainer["numNodes"])]
    added = {ADDRESSES: ",".join(addresses), SILENCE: str(settings["silence_seconds"])}
    variables = trainer["env"] + [{"name": n, "value": v} for n, v in added.items()]
    pod, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "tfx-workflow-template"},
            **_set(ownerReferences=[owner] if pod and uid else []),
        },
        "spec": settings["spec"] | {"trainer": trainer | {"args": [folder], "env": variables}},
    }
