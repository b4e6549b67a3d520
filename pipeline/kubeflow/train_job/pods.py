"""What a TrainJob's pods say of themselves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.kubeflow.train_job import names

_ON_THE_WAY = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True)
class Pod:
    """A worker's pod.

    Attributes:
      name: the pod's, another one after each start of the group.
      worker: the worker's number.
      has_started: whether its container runs, or has run.
      exit_code: of its container, once that has ended.
      trouble: why it does not start, if it says so.
    """

    name: str
    worker: int
    has_started: bool
    exit_code: int | None
    trouble: str


def read(pods: Iterable[Any]) -> list[Pod]:
    """The workers' pods, in order: of each worker the newest, without those that are being deleted.

    Args:
      pods: V1Pod objects of the Kubernetes client.
    """
    newest: dict[int, Any] = {}
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp):
        index = (pod.metadata.annotations or {}).get(names.INDEX)
        if index is not None and pod.metadata.deletion_timestamp is None:
            newest[int(index)] = pod
    return [_read(newest[worker], worker) for worker in sorted(newest)]


def _read(pod: Any, worker: int) -> Pod:
    statuses = pod.status.container_statuses or []
    state = next((status.state for status in statuses if status.name == names.NODE), None)
    ended = state and state.terminated
    return Pod(
        name=pod.metadata.name,
        worker=worker,
        has_started=bool(ended or (state and state.running)),
        exit_code=ended.exit_code if ended else None,
        trouble=_trouble(pod, state and state.waiting),
    )


def _trouble(pod: Any, waiting: Any) -> str:
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    if waiting and waiting.reason not in _ON_THE_WAY:
        return f"{waiting.reason}: {waiting.message or 'no more is said'}"
    return ""
