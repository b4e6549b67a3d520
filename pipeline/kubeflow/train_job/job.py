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
from pipeline.kubeflow.settings import Step, Target, Volume

Document = dict[str, Any]
GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
NODE = "node"
"""Kubeflow Trainer's name for the replicated job of the workers, and for their container."""
FINGERPRINT = "tfx-workflow-template/fingerprint"
"""On the TrainingRuntime, as an annotation: a hash of its spec."""
ADDRESSES = "TRAIN_JOB_ADDRESSES"
"""Environment variable of each pod: `host:port` of all workers, in order, with commas between."""
SILENCE = "TRAIN_JOB_SILENCE_SECONDS"
"""Environment variable of each pod: it ends when the step has said nothing for so long."""
_COMMAND = ["python", "-m", "pipeline.kubeflow.train_job.worker"]
_MANAGED = {"app.kubernetes.io/managed-by": "tfx-workflow-template"}


def manifests_file(pipeline: str) -> str:
    """The name of the file with the cluster's manifests, beside the package."""
    return f"{pipeline}.cluster.yaml"


def manifests(config: Config, target: Target) -> str:
    """The manifests as YAML, for the namespace that the steps run in.

    Raises:
      PipelineStop: the settings lack what several workers need.
    """
    runtime, role, binding = yaml.safe_load_all(
        Path(__file__).with_name("cluster.yaml").read_text()
    )
    _fill(runtime["spec"]["template"]["spec"], config, target)
    name = target.train_job.runtime
    runtime["metadata"]["name"] = name
    spec = json.dumps(runtime["spec"], sort_keys=True)
    digest = hashlib.sha256(spec.encode()).hexdigest()[:16]
    runtime["metadata"]["annotations"] = {FINGERPRINT: digest}
    for each in (role, binding):
        each["metadata"]["name"] = binding["roleRef"]["name"] = f"{name}-train-jobs"
    if target.service_account:
        binding["subjects"][0]["name"] = target.service_account
    check(runtime)
    return yaml.safe_dump_all([runtime, role, binding], sort_keys=False, width=100)


def _fill(spec: Document, config: Config, target: Target) -> None:
    """Puts what the settings say of the Trainer into the runtime's JobSet."""
    if target.workspace.claim is None:
        raise PipelineStop(
            "training.strategy is 'multi_worker', whose workers share the workspace on a volume, "
            "but the cluster's settings have workspace.claim: null. Name a PersistentVolumeClaim "
            "that several pods can mount (ReadWriteMany), or set training.strategy=auto."
        )
    step = target.step("Trainer")
    spec["failurePolicy"]["maxRestarts"] = config.training.model_dump()["restarts"]
    template = spec["replicatedJobs"][0]["template"]["spec"]["template"]
    template["metadata"]["labels"] |= step.labels
    template["metadata"]["annotations"] |= step.annotations
    volumes, mounts = [], []
    workspace = Volume(claim=target.workspace.claim, path=target.workspace.path)
    for number, volume in enumerate([workspace, *step.volumes]):
        claim = {"claimName": volume.claim}
        volumes.append({"name": f"volume-{number}", "persistentVolumeClaim": claim})
        mounts.append({"name": f"volume-{number}", "mountPath": volume.path})
    if step.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": step.shared_memory}
        volumes.append({"name": "dshm", "emptyDir": memory})
        mounts.append({"name": "dshm", "mountPath": "/dev/shm"})
    pod = template["spec"]
    container = pod["containers"][0]
    if step.run_as_user is not None:
        user = {"runAsUser": step.run_as_user, "runAsNonRoot": step.run_as_user != 0}
        group = {} if step.run_as_group is None else {"runAsGroup": step.run_as_group}
        container["securityContext"] |= user | group
    container |= _given(imagePullPolicy=target.image_pull_policy, volumeMounts=mounts)
    pod |= _given(
        serviceAccountName=target.service_account,
        imagePullSecrets=[{"name": name} for name in target.image_pull_secrets],
        nodeSelector=step.node_selector,
        tolerations=[each.model_dump(exclude_none=True) for each in step.tolerations],
        volumes=volumes,
    )


def _given(**fields: Any) -> Document:
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def described(config: Config, target: Target) -> Document:
    """What the package tells the Trainer's step.

    Raises:
      PipelineStop: the settings lack what several workers need.
    """
    settings, step = target.train_job, target.step("Trainer")
    replicas = settings.nodes * (step.accelerator.count if step.accelerator else 1)
    if config.training.global_batch_size % replicas:
        raise PipelineStop(
            f"training.global_batch_size is {config.training.global_batch_size}, which the "
            f"{replicas} replicas of {settings.nodes} workers (train_job.nodes) cannot share "
            "evenly."
        )
    runtime = next(iter(yaml.safe_load_all(manifests(config, target))))
    reference = {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": settings.runtime}
    trainer = _trainer(step, target)
    found = {
        "spec": {"runtimeRef": reference, "trainer": trainer}
        | _given(activeDeadlineSeconds=step.timeout_seconds),
        "pipeline": config.name,
        "fingerprint": runtime["metadata"]["annotations"][FINGERPRINT],
        "manifests": manifests_file(config.name),
        "folder": f"{target.workspace.path}/train-jobs",
        **settings.model_dump(include={"port", "start_seconds", "silence_seconds"}),
    }
    check(manifest(found, "trainer-0", "/folder"))
    return found


def _trainer(step: Step, target: Target) -> Document:
    secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in step.secrets
        for key, variable in secret.keys.items()
    ]
    devices = {step.accelerator.type: str(step.accelerator.count)} if step.accelerator else {}
    resources = _given(
        requests=_given(cpu=step.cpu, memory=step.memory),
        limits=_given(cpu=step.cpu_limit, memory=step.memory_limit, **devices),
    )
    return {
        "image": step.image or target.image,
        "command": _COMMAND,
        "env": [{"name": n, "value": v} for n, v in sorted(step.env.items())] + secrets,
        "numNodes": target.train_job.nodes,
    } | _given(resourcesPerNode=resources)


def name_of(component: str, output_file: str) -> str:
    """The name of a step's TrainJob: a DNS label, and the same when the step is retried.

    Args:
      component: the step's.
      output_file: from KFP's executor input. It lies in a folder that belongs to one execution
        of one step in one run; a retry of its pod gets the same.
    """
    return f"{component.lower()}-{hashlib.sha256(output_file.encode()).hexdigest()[:20]}"


def manifest(settings: Document, name: str, folder: str) -> Document:
    """The TrainJob as it is created.

    Its workers find each other by JobSet's host names, below the headless service of its name. It
    is owned by the step's pod, so that Kubernetes deletes it with that.

    Args:
      settings: what `described` returned.
      name: the job's.
      folder: on the workspace volume, with what the workers need.
    """
    nodes, port = settings["spec"]["trainer"]["numNodes"], settings["port"]
    addresses = [f"{name}-{NODE}-0-{number}.{name}:{port}" for number in range(nodes)]
    added = {ADDRESSES: ",".join(addresses), SILENCE: str(settings["silence_seconds"])}
    trainer = settings["spec"]["trainer"]
    variables = trainer["env"] + [{"name": n, "value": v} for n, v in added.items()]
    pod, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "labels": _MANAGED,
            "annotations": {"tfx-workflow-template/pipeline": settings["pipeline"]},
            **_given(ownerReferences=[owner] if pod and uid else []),
        },
        "spec": settings["spec"] | {"trainer": trainer | {"args": [folder], "env": variables}},
    }


def check(document: Document) -> None:
    """Checks a TrainJob or a TrainingRuntime against the models that Kubeflow Trainer publishes.

    Raises:
      ValueError: it has a field that the API lacks, or a value of another type.
    """
    from kubeflow_trainer_api import models

    model = getattr(models, f"TrainerV1alpha1{document['kind']}")
    understood = model.from_dict(document).to_dict()
    if understood != document:  # from_dict leaves out what it does not know
        raise ValueError(f"Kubeflow Trainer understands only a part: {understood} of {document}")
