"""The one folder that a run writes to, and its lock."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import PipelineStop


class Workspace:
    """Where everything of a workspace lies. Creating the object touches nothing."""

    def __init__(self, root: Path, is_here: bool = True):
        """Takes the absolute folder, and whether this machine sees it (or only a cluster's)."""
        self.root, self.is_here = root, is_here
        self.pipeline_root = root / "pipeline_root"
        self.metadata = root / "metadata.db"
        self.registry = root / "registry"
        self.checkpoints = root / "checkpoints"
        self.logs = root / "logs"
        self.reports = root / "reports"
        self.predictions = root / "predictions"

    def make(self) -> None:
        """Makes the folder, and the one for logs.

        Raises:
          PipelineStop: the folder cannot be written.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            (self.root / ".lock").touch()
        except OSError as error:
            raise PipelineStop(
                f"The workspace {self.root} cannot be written: {error.strerror}. "
                "Choose another with --set workspace=FOLDER."
            ) from error

    @contextmanager
    def locked(self, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Holds the workspace for one run; a second one waits, and is told for whom."""
        with open(self.root / ".lock", "a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                on_wait(lock.read().strip() or "another run")
                fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(f"process {os.getpid()}")
            lock.flush()
            yield
