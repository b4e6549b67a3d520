"""The same command in each machine of a cluster: one runs the pipeline, the others train with it.

JobSet, Kubeflow Trainer and Vertex AI start the same program everywhere, with TF_CONFIG. The chief
(the task of type chief, or worker 0) runs the pipeline. The others wait for it, train with it, and
end. All of them need to see the workspace under the same path.

When one of them is gone, all end with START_AGAIN: the platform starts all again, and the training
goes on from its last checkpoint.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from components.errors import PipelineStop
from components.multi_worker.rendezvous import Chief, Line, Refused, connect
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

_leading: list[Chief] = []
"""The chief's side of the meeting, while it is open."""


def take_part(run: Callable[[], int], show: Callable[[str], None]) -> int:
    """Does this process's part of the command; the exit code comes back.

    Args:
      run: runs the pipeline. It is called in the chief only, or where there is no cluster.
      show: is given each line for the person who waits for one of the others.

    Raises:
      PipelineStop: TF_CONFIG is not what it should be.
    """
    try:
        if not strategy.cluster_size():
            return run()
        strategy.check({"strategy": "multi_worker", "workers": None})
        return _lead(run) if strategy.is_chief() else _join(show)
    except strategy.StrategyError as error:
        raise PipelineStop(str(error)) from error


def _lead(run: Callable[[], int]) -> int:
    """Runs the pipeline; the others hear what its exit code is if they are not needed."""
    with _leadership() as chief:
        code = START_AGAIN
        try:
            code = run()
        finally:
            _take_leave(chief, code)
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
    with _leadership() as chief:
        try:
            _gather(chief, signals)
            chief.send({"job": vars(job)})
            chief.stop_listening()
            worker = Worker(strategy.worker_number(), job, os.environ)
            return run_group([worker], signals, lambda: bool(chief.missing()))
        except Died as death:
            PROGRESS.warning("%s", _told(death))
            raise Interrupted(_told(death)) from death


def _join(show: Callable[[str], None]) -> int:
    """Waits for the chief, and trains with it; the exit code comes back."""
    handler = _Showing(show)
    PROGRESS.addHandler(handler)
    PROGRESS.setLevel(logging.INFO)
    try:
        with noted() as signals:
            return _train_as_member(signals)
    except TrainingError as error:
        PROGRESS.error("%s", error)
        return UNUSABLE
    except (Interrupted, Died, Refused) as error:
        PROGRESS.warning("%s", _told(error))
        return START_AGAIN
    finally:
        PROGRESS.removeHandler(handler)


def _train_as_member(signals: list[int]) -> int:
    line = _find_chief(signals)
    decision = _decision(line, signals)
    if "over" in decision:
        PROGRESS.info("the chief had nothing to train")
        return int(decision["over"])
    number = strategy.worker_number()
    worker = Worker(number, Job(**decision["job"]), os.environ)
    run_group([worker], signals, lambda: not line.is_open())
    PROGRESS.info("the training is done")
    return 0


class _Showing(logging.Handler):
    def __init__(self, show: Callable[[str], None]):
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())


def _told(error: Exception) -> str:
    if isinstance(error, Interrupted):
        return str(error)
    return f"{error}; started again, all together, the training goes on from its last checkpoint"


@contextlib.contextmanager
def _leadership() -> Iterator[Chief]:
    """The chief's side of the meeting; the same one within another."""
    if _leading:
        yield _leading[0]
        return
    address = _chief_address()
    try:
        chief = Chief(int(address.rpartition(":")[2]), _cluster(), strategy.cluster_size() - 1)
    except OSError as error:
        raise strategy.StrategyError(
            f"TF_CONFIG says that the chief is at {address}, but this process cannot listen there: "
            f"{error.strerror}."
        ) from error
    _leading.append(chief)
    try:
        yield chief
    finally:
        _leading.clear()
        chief.close()


def _gather(chief: Chief, signals: list[int]) -> None:
    """Waits until all members are there."""
    deadline, told = time.monotonic() + _PATIENCE, ""
    while missing := ", ".join(map(str, chief.missing())):
        if signals:
            raise Interrupted(f"interrupted while waiting for workers {missing}")
        if time.monotonic() > deadline:
            raise Died(f"workers {missing} did not come within {_PATIENCE / 60:.0f} minutes")
        if missing != told:
            PROGRESS.info("waiting for workers %s", missing)
            told = missing
        time.sleep(0.2)


def _take_leave(chief: Chief, code: int) -> None:
    """If nothing was trained, tells the members, late ones too, that they are not needed."""
    deadline = time.monotonic() + (0 if code else _FAREWELL)
    while chief.is_listening and chief.missing() and time.monotonic() < deadline:
        time.sleep(0.2)
    if chief.is_listening:
        chief.send({"over": code})


def _find_chief(signals: list[int]) -> Line:
    """The connection to the chief, once that is up."""
    address = _chief_address()
    PROGRESS.info("waiting for the chief at %s", address)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return connect(address, _cluster(), strategy.worker_number())
        except Refused as error:
            if time.monotonic() > deadline:
                minutes = f"{_PATIENCE / 60:.0f} minutes"
                raise Refused(f"no chief at {address} for {minutes} ({error})") from error
        if signals:
            raise Interrupted("interrupted while waiting for the chief")
        time.sleep(0.5)


def _decision(line: Line, signals: list[int]) -> dict[str, Any]:
    """What the chief says when it comes to the training, which may be in hours."""
    try:
        while (decision := line.receive(0.5)) is None:
            if signals:
                raise Interrupted("interrupted while waiting for the chief")
    except Refused as error:
        raise Refused(f"the chief is gone ({error})") from error
    return decision


def _chief_address() -> str:
    addresses = strategy.cluster()
    return (addresses.get("chief") or addresses["worker"])[0]


def _cluster() -> str:
    """The same in all members of a cluster, and in no other one."""
    text = json.dumps(strategy.cluster(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
