"""The one folder that a run writes to, and its lock."""

import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from components.errors import PipelineStop

ENOUGH_MIB = 32
"""Less free space than this is no beginning."""


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
          PipelineStop: the folder cannot be written, or its disk is full.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            (self.root / ".lock").touch()
            free = shutil.disk_usage(self.root).free >> 20
        except OSError as error:
            raise PipelineStop(
                f"The workspace {self.root} cannot be written: {error.strerror}. "
                "Choose another with --set workspace=FOLDER."
            ) from error
        if free < ENOUGH_MIB:
            raise PipelineStop(
                f"The disk of the workspace {self.root} is full: {free} MiB are free, and a run "
                f"needs {ENOUGH_MIB} at least. Free some (make gc), or choose another folder with "
                "--set workspace=FOLDER."
            )

    def check_metadata(self) -> None:
        """Looks whether `metadata.db`, which knows what is cached, can be used.

        Raises:
          PipelineStop: it is damaged, or another program holds it.
        """
        if not self.metadata.exists():
            return
        try:
            with closing(sqlite3.connect(self.metadata, timeout=5)) as database:
                database.execute("BEGIN IMMEDIATE")
                (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            found = str(error)
        if "locked" in found:
            raise PipelineStop(
                f"Another program holds {self.metadata} ({found}). End it, and type the same again."
            )
        if found != "ok":
            raise PipelineStop(
                f"{self.metadata}, which knows what is cached, is damaged ({found}). Move it away, "
                "and type the same again: everything is made anew; versions are not touched."
            )

    @contextmanager
    def temporary_files(self) -> Iterator[None]:
        """Gives libraries a folder for their temporary files, without what killed runs left there.

        The caller holds the lock. The folder is in the system's, whose path is short: sockets in it
        have no room for a long one.
        """
        own = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:12]
        before = os.environ.get("TMPDIR"), tempfile.tempdir
        folder = os.path.join(tempfile.gettempdir(), f"pipeline-{os.getuid()}-{own}")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.mkdir(folder, 0o700)
        except OSError as error:
            if error.errno != errno.EEXIST:  # another's
                raise
            yield
            return
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield
        finally:
            os.environ.pop("TMPDIR")
            if before[0] is not None:
                os.environ["TMPDIR"] = before[0]
            tempfile.tempdir = before[1]
            shutil.rmtree(folder, ignore_errors=True)

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
