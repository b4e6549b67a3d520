"""Training jobs in processes of their own, with their times and their memory."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import ChildFailed
from components.trainer.core.job import Job
from pipeline import loading
from pipeline.config import Model, Training

Event = dict[str, Any]
"""A line of `benchmarks.timed_job`: `what`, `time`, `processor`, `resident`, `highest`, `step`."""
_NEVER = 10**9


class Rate(NamedTuple):
    """Examples in a time."""

    examples: int
    seconds: float
    processor: float
    """Seconds of all threads: steadier on a busy machine."""

    @property
    def per_second(self) -> float:
        """Examples/s."""
        return self.examples / self.seconds


def make(
    folder: Path,
    data: Path,
    inputs: dict[str, Any],
    model: dict[str, Any],
    training: dict[str, Any],
) -> Job:
    """A job that trains without stopping early, evaluates at its end, and saves at its end.

    Args:
      folder: for its checkpoints and curves.
      data: `train*` and `eval*` in it are the examples.
      inputs: the feature spec.
      model: settings that differ from a plain network's.
      training: settings of the training; `steps`, `global_batch_size` and others.
    """
    chosen = {
        "seed": 1,
        "learning_rate": {"initial": 0.001},
        "evaluate_every_steps": _NEVER,
        "strategy": "one_device",
        "checkpoints": {"every_seconds": None},
    } | training
    settings = {
        "model": Model.model_validate(model).model_dump(mode="json"),
        "training": Training.model_validate(chosen).model_dump(mode="json"),
    }
    return Job(
        pipeline="benchmark",
        train_files=[str(data / "train*")],
        eval_files=[str(data / "eval*")],
        inputs=inputs,
        settings=settings,
        checkpoints=str(folder / "checkpoints"),
        identity={"job": str(folder), "settings": settings},
        log_dir=str(folder / "tensorboard"),
    )


class Running:
    """A job in a process of its own."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        devices: int = 1,
        environment: dict[str, str] | None = None,
    ):
        """Starts it.

        Args:
          job: what to train.
          folder: for its file, its events and what it prints.
          devices: how many logical devices the processor is.
          environment: variables to add.
        """
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("job-*.json")))
        file, self._events = folder / f"job-{number}.json", folder / f"events-{number}.jsonl"
        self._printed = folder / f"printed-{number}"
        file.write_text(json.dumps(asdict(job)))
        command = ["-m", "benchmarks.timed_job", str(file), str(self._events), str(devices)]
        self.started = time.time()
        with self._printed.open("w") as printed:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=loading.PROJECT,
                env=os.environ | (environment or {}),
                stdout=printed,
                stderr=subprocess.STDOUT,
            )

    @property
    def events(self) -> list[Event]:
        """What it has noted until now."""
        lines = self._events.read_text().splitlines() if self._events.exists() else []
        return [json.loads(line) for line in lines]

    def wait(self) -> list[Event]:
        """Waits for its end and returns what it noted.

        Raises:
          ChildFailed: it did not end well.
        """
        if code := self._process.wait():
            raise ChildFailed(f"A training ended with code {code}:\n{self._printed.read_text()}")
        return self.events

    def kill_when(self, wanted: Callable[[Event], bool]) -> list[Event]:
        """Kills it (SIGKILL) once it has noted what is wanted, and returns what it noted.

        Raises:
          ChildFailed: it ended before.
        """
        while not any(wanted(event) for event in self.events):
            if self._process.poll() is not None:
                raise ChildFailed(f"A training ended early:\n{self._printed.read_text()}")
            time.sleep(0.01)
        self.kill()
        return self.events

    def kill(self) -> None:
        """Ends it at once (SIGKILL), if it has not ended."""
        self._process.kill()
        self._process.wait()


def run(job: Job, folder: Path, devices: int = 1) -> list[Event]:
    """Runs a job to its end and returns what it noted."""
    return Running(job, folder, devices).wait()


def run_workers(job: Job, folder: Path, workers: int) -> list[Event]:
    """Runs a job in processes that train together; returns what the first one noted.

    Its processor time is the first one's alone.
    """
    addresses = [f"localhost:{port}" for port in _free_ports(workers)]
    running = []
    for index in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {"TF_CONFIG": json.dumps(task)}
        running.append(Running(job, folder / str(index), environment=environment))
    try:
        noted = [process.wait() for process in running]
    finally:
        for process in running:
            process.kill()
    return noted[0]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def first(events: list[Event], what: str) -> Event:
    """The first event of a kind."""
    return next(event for event in events if event["what"] == what)


def steady(events: list[Event], batch: int, after: int) -> Rate:
    """The rate of the stretches after step `after`; without the last, which holds an evaluation.

    Raises:
      ValueError: there are too few stretches.
    """
    ends = [event for event in events if event["what"] == "steps" and event["step"] >= after]
    if len(ends) < 3:
        raise ValueError(f"Too few stretches after step {after}: {ends}")
    begin, end = ends[0], ends[-2]
    examples = (end["step"] - begin["step"]) * batch
    return Rate(examples, end["time"] - begin["time"], end["processor"] - begin["processor"])
