"""The chief's log, line by line as this step's own, through all starts of the group."""

import threading
import time

from components.errors import PipelineStop
from pipeline.kubeflow.train_job.cluster import Cluster, LogInterrupted

_AGAIN_SECONDS = 1.0
_OVERLAP_SECONDS = 60
"""Asked for twice, as clocks differ; what was shown is known by its time."""
_LAST_WORDS_SECONDS = 30.0


class Relay:
    """Follows one pod after the other."""

    def __init__(self, cluster: Cluster):
        """Follows none yet."""
        self._cluster, self._pod = cluster, ""
        self._is_over, self._thread = threading.Event(), threading.Thread()
        self.last_line = ""
        """The last one that was shown, of whatever pod."""

    def follow(self, pod: str) -> None:
        """Follows this pod from its first line on, if it is not the one that is followed."""
        if pod != self._pod:
            self.finish()
            self._pod, self._is_over = pod, threading.Event()
            show = threading.Thread(target=self._show, args=(pod, self._is_over), daemon=True)
            self._thread = show
            show.start()

    def finish(self) -> None:
        """Shows the last lines of a pod that has ended."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_WORDS_SECONDS)

    def _show(self, pod: str, is_over: threading.Event) -> None:
        """Shows lines until the pod has ended; after that nothing new is said."""
        shown, heard = "", 0.0
        while True:
            is_last = is_over.is_set()
            which = {"since_seconds": _since(heard)} if shown else {}
            try:
                for time_, line in self._cluster.log(pod, not is_last, **which):
                    if time_ > shown:
                        shown, heard = time_, time.monotonic()
                        self._say(line)
            except PipelineStop as error:  # the training does not need its log
                return self._say(f"The log of {pod} is not shown. {error}")
            except LogInterrupted:
                pass
            if is_last:
                return
            is_over.wait(_AGAIN_SECONDS)

    def _say(self, line: str) -> None:
        print(line, flush=True)
        if line.strip():
            self.last_line = line


def _since(heard: float) -> int:
    return int(time.monotonic() - heard) + _OVERLAP_SECONDS
