"""Whether a TrainJob's workers start, and what hinders them."""

import logging
import time

from components.errors import PipelineStop
from pipeline.kubeflow.train_job.pods import Pod

_PROGRESS = logging.getLogger("progress")


class Start:
    """Watches the workers' pods until all have started, again after each restart."""

    def __init__(self, name: str, nodes: int, seconds: float):
        """Starts the clock.

        Args:
          name: the TrainJob's.
          nodes: how many workers it has.
          seconds: for all of them to start.
        """
        self._name, self._nodes, self._seconds = name, nodes, seconds
        self._since: float | None = time.monotonic()
        self._told: set[str] = set()

    def look(self, pods: list[Pod], is_queued: bool) -> None:
        """Takes note; tells each kind of trouble once.

        Args:
          pods: as they are now.
          is_queued: the TrainJob is suspended, as a queue (Kueue) does: that takes no time here.

        Raises:
          PipelineStop: they have had their time.
        """
        if len(pods) == self._nodes and all(pod.has_started for pod in pods):
            self._since = None
            return
        if is_queued:
            self._since = None
            self._tell("Suspended", "it is suspended until a queue admits it")
            return
        if self._since is None:
            self._since = time.monotonic()
        for pod in pods:
            if pod.trouble:
                self._tell(pod.trouble.partition(":")[0], f"{pod.name}: {pod.trouble}")
        if time.monotonic() - self._since > self._seconds:
            raise PipelineStop(
                f"The workers of TrainJob {self._name} did not all start within {self._seconds:g} "
                f"s: {self._troubles(pods)}. (Their time is train_job.start_seconds.)"
            )

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            _PROGRESS.warning("TrainJob %s waits: %s", self._name, text)

    def _troubles(self, pods: list[Pod]) -> str:
        told = [
            f"{pod.name}: {pod.trouble or f'see kubectl describe pod {pod.name}'}"
            for pod in pods
            if not pod.has_started
        ]
        if len(pods) < self._nodes:
            lack = f"{len(pods)} of {self._nodes} pods were made"
            told.append(f"{lack}, see kubectl describe trainjob,jobset {self._name}")
        return "; ".join(told)
