"""Signs of life of the step, so that no worker goes on for a step that is gone.

Kubernetes deletes a TrainJob with the pod that owns it. But a pod whose container was ended stays
until someone removes it, and its workers would train on. So the step writes a file all the time,
and workers that see no change of it for long end. Only changes count: clocks of machines differ.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.kubeflow.package import write

_PARTS = 10
"""It beats so many times in the time after which silence is taken for death."""


@contextlib.contextmanager
def beating(file: Path, silence_seconds: float) -> Iterator[None]:
    """Writes the file, changed each time, until the block ends."""
    over = threading.Event()

    def beat() -> None:
        number = 0
        while not over.wait(silence_seconds / _PARTS):
            number += 1
            with contextlib.suppress(OSError):  # the next one may succeed
                write(file, str(number))

    write(file, "0")
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Watch:
    """Watches for changes of the file."""

    def __init__(
        self, file: Path, silence_seconds: float, on_silence: Callable[[], None] | None = None
    ):
        """Starts.

        Args:
          file: the one that `beating` writes.
          silence_seconds: what `beating` was given.
          on_silence: called once, from another thread, after so long without a change.
        """
        self._file, self._seconds, self._on_silence = file, silence_seconds, on_silence
        self._changed = time.monotonic()
        threading.Thread(target=self._look, daemon=True).start()

    def is_quiet(self) -> bool:
        """Whether several beats were missed: with other evidence, as good as silence."""
        return time.monotonic() - self._changed > self._seconds / 2

    def _look(self) -> None:
        last = _content(self._file)
        while time.monotonic() - self._changed < self._seconds:
            time.sleep(self._seconds / _PARTS)
            if (content := _content(self._file)) != last:
                last, self._changed = content, time.monotonic()
        if self._on_silence:
            self._on_silence()


def _content(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
