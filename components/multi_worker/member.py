"""The same command in each machine of a cluster: one runs the pipeline, the others train with it.

JobSet, Kubeflow Trainer and Vertex AI start the same program everywhere, with TF_CONFIG. The chief
(the task of type chief, or worker 0) runs the pipeline. The others wait for it, train with it, and
end. They meet in a folder that all of them see:

- each member writes `member-<number>`, with a word that it draws at its start
- the chief, once all are there, writes `job.json`: what to train, or its exit code if there is
  nothing to train, and the words that it has read

A member takes a `job.json` with its word only, so none of an earlier attempt. When one of them is
gone, all end with START_AGAIN: the platform starts all again, and the training goes on from its
last checkpoint.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components import files
from components.errors import PipelineStop
from components.trainer.core import strategy
from components.trainer.core.checkpoints import PROGRESS
from components.trainer.core.interruption import START_AGAIN, Interrupted, noted
from components.trainer.core.job import Job
from components.trainer.core.loop import TrainingError
from components.trainer.core.worker import UNUSABLE
from components.trainer.processes import Died, Worker, run_group

_PATIENCE = 600.0
"""Seconds for the machines of a cluster to come up."""
_FAREWELL = 60.0
"""Seconds to wait for members that come late when there is nothing to train."""
_JOB = "job.json"


class Meeting:
    """Where the processes of a cluster find each other."""

    def __init__(self, folder: str, cluster: list[str]):
        """Takes a folder that all processes of the cluster see, and their addresses."""
        name = hashlib.sha256(json.dumps(cluster).encode()).hexdigest()[:16]
        self.folder, self.size = Path(folder, f"cluster-{name}"), len(cluster)

    def come(self, number: int, word: str) -> dict[str, Any] | None:
        """A member's: leaves its word, again if it was removed; what the chief says, or None."""
        with contextlib.suppress(OSError, ValueError):  # the chief removes the folder just now
            self._write(f"member-{number}", word)
            said: dict[str, Any] = json.loads((self.folder / _JOB).read_text())
            return said if word in said["words"] else None
        return None

    def missing(self) -> list[int]:
        """The numbers of the members that are not there; the chief is no member."""
        return [n for n in range(1, self.size) if not (self.folder / f"member-{n}").exists()]

    def say(self, what: dict[str, Any]) -> None:
        """The chief's: tells all that are there."""
        words = [path.read_text() for path in self.folder.glob("member-*")]
        self._write(_JOB, json.dumps(what | {"words": words}))

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        if not path.exists() or path.read_text() != text:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_atomically(str(path), text)


_meetings: list[Meeting] = []
"""The chief's, while it runs the pipeline and has said nothing yet."""


def take_part(folder: str, run: Callable[[], int], show: Callable[[str], None]) -> int:
    """Does this process's part of the command; the exit code comes back.

    Args:
      folder: one that all processes of the cluster see, if there is a cluster.
      run: runs the pipeline. It is called in the chief only, or where there is no cluster.
      show: is given each line for the person who waits for one of the others.

    Raises:
      PipelineStop: TF_CONFIG is not what it should be.
    """
    try:
        cluster, number = strategy.cluster(), strategy.worker_number()
    except strategy.StrategyError as error:
        raise PipelineStop(str(error)) from error
    if not cluster:
        return run()
    meeting = Meeting(folder, cluster)
    return _join(meeting, number, show) if number else _lead(meeting, run)


def _lead(meeting: Meeting, run: Callable[[], int]) -> int:
    """Runs the pipeline; the others hear what its exit code is if they are not needed."""
    shutil.rmtree(meeting.folder, ignore_errors=True)  # what an earlier attempt left
    _meetings.append(meeting)
    code = START_AGAIN
    try:
        code = run()
    finally:
        if _meetings:
            _meetings.clear()
            deadline = time.monotonic() + (0 if code else _FAREWELL)
            while meeting.missing() and time.monotonic() < deadline:
                time.sleep(0.2)
            meeting.say({"over": code})
    return code


def train_as_chief(job: Job, signals: list[int]) -> int:
    """Trains with the other members of the cluster; returns the number of replicas.

    Args:
      job: what to train.
      signals: receives the signals that come.

    Raises:
      Interrupted: this process was asked to end, or a member is gone; start again.
      TrainingError, StrategyError: what a person has to put right.
    """
    if not _meetings:
        raise strategy.StrategyError("A cluster trains by the command `run`, in each machine.")
    meeting, deadline = _meetings[0], time.monotonic() + _PATIENCE
    PROGRESS.info("waiting for the other workers")
    while missing := ", ".join(map(str, meeting.missing())):
        if signals:
            raise Interrupted(f"interrupted while waiting for workers {missing}")
        if time.monotonic() > deadline:
            patience = f"{_PATIENCE / 60:.0f} min"
            raise Interrupted(_advice(f"workers {missing} did not come within {patience}"))
        time.sleep(0.2)
    _meetings.remove(meeting)
    meeting.say({"job": job.described()})
    try:
        return _run(0, job, signals)
    except Died as death:
        PROGRESS.warning("%s", _advice(death))
        raise Interrupted(_advice(death)) from death


def _join(meeting: Meeting, number: int, show: Callable[[str], None]) -> int:
    """Waits for the chief, and trains with it; the exit code comes back."""

    def shown(record: logging.LogRecord) -> bool:
        show(record.getMessage())
        return True

    PROGRESS.addFilter(shown)
    PROGRESS.setLevel(logging.INFO)
    try:
        with noted() as signals:
            return _train_as_member(meeting, number, signals)
    except TrainingError as error:
        PROGRESS.error("%s", error)
        return UNUSABLE
    except (Interrupted, Died) as error:
        PROGRESS.warning("%s", error if isinstance(error, Interrupted) else _advice(error))
        return START_AGAIN
    finally:
        PROGRESS.removeFilter(shown)


def _train_as_member(meeting: Meeting, number: int, signals: list[int]) -> int:
    word = uuid.uuid4().hex
    PROGRESS.info("waiting for the chief at %s", strategy.cluster()[0])
    while (said := meeting.come(number, word)) is None:  # it may be hours until the training
        if signals:
            raise Interrupted("interrupted while waiting for the chief")
        time.sleep(0.5)
    if "over" in said:
        PROGRESS.info("the chief had nothing to train")
        return int(said["over"])
    _run(number, Job(**said["job"]), signals)
    PROGRESS.info("the training is done")
    return 0


def _run(number: int, job: Job, signals: list[int]) -> int:
    hang_seconds = job.settings["training"]["hang_seconds"]
    return run_group([Worker(number, job, os.environ)], signals, hang_seconds)


def _advice(what: object) -> str:
    return f"{what}; started again, all together, the training goes on from its last checkpoint"
