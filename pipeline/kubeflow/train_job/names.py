"""Names that the step, the TrainJob's pods and the manifests have to agree on."""

import hashlib

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
NODE = "node"
"""Kubeflow Trainer's name for the replicated job of the workers, and for their container."""
CONTROLLER_LABELS = {f"{GROUP}/trainjob-ancestor-step": "trainer"}
"""By these Trainer knows which replicated job a TrainJob's `trainer` is about."""
JOB_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""On each pod: the JobSet's name, which is the TrainJob's."""
INDEX = "batch.kubernetes.io/job-completion-index"
"""On each pod, as an annotation: the worker's number."""
FINGERPRINT = "tfx-workflow-template/fingerprint"
"""On the TrainingRuntime, as an annotation: a hash of its spec."""
LABELS = {"app.kubernetes.io/managed-by": "tfx-workflow-template"}

ADDRESSES = "TRAIN_JOB_ADDRESSES"
"""Environment variable of each pod: `host:port` of all workers, in order, with commas between."""
SILENCE = "TRAIN_JOB_SILENCE_SECONDS"
"""Environment variable of each pod: it ends when the step has said nothing for so long."""


def job(component: str, output_file: str) -> str:
    """The name of a step's TrainJob: a DNS label, and the same when the step is retried.

    Args:
      component: the step's.
      output_file: from KFP's executor input. It lies in a folder that belongs to one execution
        of one step in one run; a retry of its pod gets the same.
    """
    return f"{component.lower()}-{hashlib.sha256(output_file.encode()).hexdigest()[:20]}"


def addresses(name: str, nodes: int, port: int) -> list[str]:
    """Where the workers are found: JobSet's host names, below the headless service of its name.

    https://github.com/kubernetes-sigs/jobset/blob/v0.12.0/api/jobset/v1alpha2/jobset_types.go
    """
    return [f"{name}-{NODE}-0-{number}.{name}:{port}" for number in range(nodes)]
