"""Waits for a TrainJob, and says how it ended."""

import time
from typing import Any

from components.errors import PipelineStop
from pipeline.kubeflow.package import Document
from pipeline.kubeflow.train_job.cluster import Cluster, LogInterrupted
from pipeline.kubeflow.train_job.manifests import UNUSABLE_CODES
from pipeline.kubeflow.train_job.pods import Pod
from pipeline.kubeflow.train_job.relay import Relay
from pipeline.kubeflow.train_job.starting import Start

_FIRST_SECONDS, _MOST_SECONDS = 0.2, 5.0


def wait(cluster: Cluster, name: str, nodes: int, start_seconds: float) -> None:
    """Returns when all workers have ended well. Meanwhile the chief's log is shown.

    Args:
      cluster: where the TrainJob is.
      name: the TrainJob's.
      nodes: how many workers it has.
      start_seconds: for all of them to start, also after a restart.

    Raises:
      PipelineStop: the training failed, the workers don't start, or the TrainJob is gone.
    """
    relay, start, seconds = Relay(cluster), Start(name, nodes, start_seconds), _FIRST_SECONDS
    while True:
        job, pods = cluster.find(name), cluster.pods(name)
        if job is None:
            raise PipelineStop(f"The TrainJob {name} was deleted while it was waited for.")
        if pods and pods[0].worker == 0 and pods[0].has_started:
            relay.follow(pods[0].name)
        if _condition(job, "Complete"):
            relay.finish()
            return
        if failed := _condition(job, "Failed"):
            relay.finish()
            raise PipelineStop(_reason(cluster, name, failed, pods, relay.last_line))
        start.look(pods, is_queued=bool(_condition(job, "Suspended")))
        time.sleep(seconds)
        seconds = min(seconds * 1.3, _MOST_SECONDS)


def _condition(job: Document, kind: str) -> dict[str, Any] | None:
    """A TrainJob's condition, if it holds."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] == kind and condition["status"] == "True":
            return dict(condition)
    return None


def _reason(
    cluster: Cluster, name: str, failed: dict[str, Any], pods: list[Pod], last_line: str
) -> str:
    """Why it failed: the last words of the worker that had something to say, or of the chief."""
    speaker = next((pod for pod in pods if pod.exit_code in UNUSABLE_CODES), None)
    worker = speaker.worker if speaker else 0
    if speaker and worker:
        last_line = _last_line(cluster, speaker.name)
    words = last_line.removeprefix("Trainer failed: ") or "its log says nothing"
    how = f"{failed['reason']}: {failed['message']}"
    return f"{words} (worker {worker} of TrainJob {name}; {how})"


def _last_line(cluster: Cluster, pod: str) -> str:
    try:
        return "".join(line for _, line in cluster.log(pod, follow=False, tail_lines=1))
    except (LogInterrupted, PipelineStop):
        return ""
