"""Processes of this machine that train: started, watched, and ended together."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.trainer.core.checkpoints import PROGRESS
from components.trainer.core.interruption import START_AGAIN, Interrupted
from components.trainer.core.job import Job
from components.trainer.core.loop import TrainingError
from components.trainer.core.worker import LOST, UNUSABLE

PROJECT = Path(__file__).resolve().parents[2]
_GRACE = 20.0
"""Seconds to agree and write a checkpoint. (Kubernetes kills 30 s after SIGTERM.)"""
_IN_ORDER = (None, 0, START_AGAIN)
"""Exit codes of a worker that runs, has finished, or was asked to end."""

_SIGNALS = {int(known): known.name for known in signal.Signals}


class Died(Exception):
    """A worker ended before its time; the message says which and how."""


class Worker:
    """A running worker process."""

    def __init__(
        self,
        number: int,
        job: Job,
        variables: Mapping[str, str],
        speaks: bool = True,
        python: str = sys.executable,
    ):
        """Starts it; its output goes where this process's own standard error goes.

        Args:
          number: its number in the group.
          job: what to train.
          variables: its environment variables.
          speaks: whether its lines of progress are shown; all have the same.
          python: the interpreter, of whatever environment.
        """
        self.number, self._speaks = number, speaks
        self.told: dict[str, Any] = {}
        """What it said beside lines of progress."""
        self.heard = time.monotonic()
        """When it last said anything; it says at least that it has come further."""
        with tempfile.TemporaryFile("w+") as text:
            json.dump(job.described(), text)
            text.seek(0)
            self._process = subprocess.Popen(
                [python, "-m", "components.trainer.core.worker", str(os.getpid())],
                stdin=text,
                stdout=subprocess.PIPE,
                cwd=PROJECT,
                env=variables,
                text=True,
                start_new_session=True,  # Ctrl-C is for this process, which passes it on
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            message, self.heard = json.loads(line), time.monotonic()
            if "progress" not in message:
                self.told |= message
            elif message["level"] < logging.INFO:
                continue
            elif self._speaks:
                PROGRESS.log(message["level"], "%s", message["progress"])
            else:
                logging.info("worker %d: %s", self.number, message["progress"])

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def __str__(self) -> str:
        """How it ended, for a person."""
        code = self.code or 0
        if code < 0:
            return f"worker {self.number} was killed by {_SIGNALS.get(-code, -code)}"
        if code == LOST:
            return f"worker {self.number} lost the others"
        return f"worker {self.number} ended with exit code {code}"

    def terminate(self) -> None:
        """Asks it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it if it still runs, and hears the last that it said."""
        if self.code is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(timeout=5)


def run_group(workers: list[Worker], signals: list[int], hang_seconds: float = float("inf")) -> int:
    """Watches workers until the training ends; none runs after it.

    When one is gone, or hangs, the others are killed: they can only wait for it.

    Args:
      workers: those of the group that this machine has.
      signals: receives the signals that come for this process; they are passed on.
      hang_seconds: a worker that says nothing for longer counts as dead.

    Returns:
      The number of replicas.

    Raises:
      Died: a worker ended before its time, or hangs.
      Interrupted: they were asked to end, and did.
      TrainingError: what a person has to put right.
    """
    try:
        _watch(workers, signals, hang_seconds)
    finally:
        for worker in workers:
            worker.kill()
    return int(workers[0].told["replicas"])


def _watch(workers: list[Worker], signals: list[int], hang_seconds: float) -> None:
    deadline, is_passed_on = float("inf"), False
    while True:
        codes = [worker.code for worker in workers]  # each is looked at once: it may end meanwhile
        if all(code == 0 for code in codes):
            return
        asked = bool(signals)
        failed = [w for w, code in zip(workers, codes, strict=True) if code not in _IN_ORDER]
        if failed:
            raise _failure(failed, asked)
        since = time.monotonic() - hang_seconds
        if silent := [
            w.number for w, c in zip(workers, codes, strict=True) if c is None and w.heard < since
        ]:
            # One that waits for another is as silent as that one: nobody can tell them apart.
            names = " and ".join(f"worker {number}" for number in silent)
            raise Died(f"{names} came no further for {hang_seconds:g} s (training.hang_seconds)")
        stopped = [w for w, code in zip(workers, codes, strict=True) if code == START_AGAIN]
        if stopped and None not in codes:
            stopped[0].kill()
            raise Interrupted(stopped[0].told.get("interrupted", "interrupted"))
        if asked and not is_passed_on:
            is_passed_on = True
            for worker in workers:
                worker.terminate()
        if asked or stopped:
            deadline = min(deadline, time.monotonic() + _GRACE)
        if time.monotonic() > deadline:
            raise Interrupted(f"interrupted, and not through after {_GRACE:.0f} s; killed")
        time.sleep(0.05)


def _failure(failed: list[Worker], was_asked: bool) -> Exception:
    # Who lost the others is not the one who was lost.
    first = min(failed, key=lambda worker: worker.code == LOST)
    first.kill()
    if first.code == UNUSABLE and "failure" in first.told:
        return TrainingError(first.told["failure"])
    if was_asked:
        return Interrupted(f"interrupted, and {first}; the last checkpoint is kept")
    return Died(str(first))
