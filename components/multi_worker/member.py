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

    def __init__(self, folder: str):
        """Takes a folder that all processes of the cluster see."""
        cluster = strategy.cluster()
        name = hashlib.sha256(json.dumps(cluster).encode()).hexdigest()[:16]
        self._folder = os.path.join(folder, f"cluster-{name}")
        self._members = range(1, len(cluster))
        self.is_over = False
        """Whether the chief has said what there is to do."""

    def open(self) -> None:
        """The chief's beginning: removes what an earlier attempt left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def come(self, number: int, word: str) -> dict[str, Any] | None:
        """A member's: leaves its word, again if it was removed; what the chief says, or None."""
        path = os.path.join(self._folder, f"member-{number}")
        with contextlib.suppress(OSError, ValueError):  # the chief removes the folder just now
            if not os.path.exists(path) or _read(path) != word:
                os.makedirs(self._folder, exist_ok=True)
                files.write_atomically(path, word)
            said: dict[str, Any] = json.loads(_read(os.path.join(self._folder, _JOB)))
            return said if word in said["words"] else None
        return None

    def words(self) -> dict[int, str]:
        """The words of the members that are there, by number."""
        words = {}
        for number in self._members:
            with contextlib.suppress(OSError):
                words[number] = _read(os.path.join(self._folder, f"member-{number}"))
        return words

    def missing(self) -> list[int]:
        """The numbers of the members that are not there."""
        return sorted(set(self._members) - set(self.words()))

    def say(self, what: dict[str, Any]) -> None:
        """The chief's: tells all that are there."""
        self.is_over = True
        os.makedirs(self._folder, exist_ok=True)
        text = json.dumps(what | {"words": [*self.words().values()]})
        files.write_atomically(os.path.join(self._folder, _JOB), text)


_meetings: list[Meeting] = []
"""The chief's, while it runs the pipeline."""


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
        if not strategy.cluster():
            return run()
        meeting = Meeting(folder)
        return _lead(meeting, run) if strategy.is_chief() else _join(meeting, show)
    except strategy.StrategyError as error:
        raise PipelineStop(str(error)) from error


def _lead(meeting: Meeting, run: Callable[[], int]) -> int:
    """Runs the pipeline; the others hear what its exit code is if they are not needed."""
    meeting.open()
    _meetings.append(meeting)
    code = START_AGAIN
    try:
        code = run()
    finally:
        _meetings.clear()
        if not meeting.is_over:
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
    meeting = _meetings[0]
    try:
        _gather(meeting, signals)
        meeting.say({"job": vars(job)})
        return run_group([Worker(strategy.worker_number(), job, os.environ)], signals)
    except Died as death:
        PROGRESS.warning("%s", _advice(death))
        raise Interrupted(_advice(death)) from death


def _gather(meeting: Meeting, signals: list[int]) -> None:
    """Waits until all members are there."""
    deadline, shown = time.monotonic() + _PATIENCE, ""
    while missing := ", ".join(map(str, meeting.missing())):
        if signals:
            raise Interrupted(f"interrupted while waiting for workers {missing}")
        if time.monotonic() > deadline:
            raise Died(f"workers {missing} did not come within {_PATIENCE / 60:.0f} minutes")
        if missing != shown:
            PROGRESS.info("waiting for workers %s", missing)
            shown = missing
        time.sleep(0.2)


def _join(meeting: Meeting, show: Callable[[str], None]) -> int:
    """Waits for the chief, and trains with it; the exit code comes back."""
    handler = _Showing(show)
    PROGRESS.addHandler(handler)
    PROGRESS.setLevel(logging.INFO)
    try:
        with noted() as signals:
            return _train_as_member(meeting, signals)
    except TrainingError as error:
        PROGRESS.error("%s", error)
        return UNUSABLE
    except Interrupted as error:
        PROGRESS.warning("%s", error)
        return START_AGAIN
    except Died as error:
        PROGRESS.warning("%s", _advice(error))
        return START_AGAIN
    finally:
        PROGRESS.removeHandler(handler)


def _train_as_member(meeting: Meeting, signals: list[int]) -> int:
    number, word = strategy.worker_number(), uuid.uuid4().hex
    PROGRESS.info("waiting for the chief at %s", strategy.cluster()[0])
    while (said := meeting.come(number, word)) is None:  # it may be hours until the training
        if signals:
            raise Interrupted("interrupted while waiting for the chief")
        time.sleep(0.5)
    if "over" in said:
        PROGRESS.info("the chief had nothing to train")
        return int(said["over"])
    run_group([Worker(number, Job(**said["job"]), os.environ)], signals)
    PROGRESS.info("the training is done")
    return 0


class _Showing(logging.Handler):
    def __init__(self, show: Callable[[str], None]):
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())


def _advice(death: Died) -> str:
    return f"{death}; started again, all together, the training goes on from its last checkpoint"


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
