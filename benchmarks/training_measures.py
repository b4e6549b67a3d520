"""What `benchmarks.training` measures, each part by itself, each training in a fresh process."""

import json
import shutil
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import jobs, processes, template_fit, training_rows
from benchmarks.jobs import Event, Rate
from components.trainer.core import data as core_data
from components.trainer.core.job import Job
from pipeline import loading
from pipeline.config import Checkpoints, Training

Step = Callable[[str], AbstractContextManager[None]]
"""Says what runs now, and how long it took."""

BATCH = 256
"""Where there is nothing to compare with."""
TAXI = {"hidden": [64, 32], "dropout": 0.3}
"""As in configs/taxi.yaml."""
LARGE = {"hidden": [1024, 1024], "dropout": 0.3}
ONE_DEVICE, FROM_DISK = "one_device", "one_device, rows from disk"
DEFAULT_INTERVAL = Checkpoints().every_seconds or 0.0
_REPEATS = 3
_TEMPLATE_STEPS, _OUR_STEPS = 4000, 30_000
_TEMPLATE_MODEL = {"hidden": [16, 8]}
_STRATEGY_STEPS = 5000
_SMALL_MEMORY_MIB = 1.0
_SAVED_EVERY = 1000


class Throughput(NamedTuple):
    """Of one way to train, the middle of some runs."""

    rate: Rate
    until_first: float
    """Seconds from the end of the imports to the end of the first step."""


def throughput(copy: Path, folder: Path, step: Step) -> dict[str, Throughput]:
    """The template's `run_fn` and our loop, in turns, on the template's rows and batch size.

    Args:
      copy: a copy of the template that has run.
      folder: for all that is written; made.
      step: says what runs now.
    """
    inputs = training_rows.write_of_template(copy, folder)
    found: dict[str, list[Throughput]] = {"template": [], "ours": []}
    for number in range(_REPEATS):
        with step(f"the template's input and fit, {number + 1} of {_REPEATS}"):
            theirs, batch = _template(copy, folder / f"template-{number}.json")
            found["template"].append(theirs)
        with step(f"ours on the same rows, {number + 1} of {_REPEATS}"):
            options = {"steps": _OUR_STEPS, "global_batch_size": batch}
            own = folder / f"ours-{number}"
            job = jobs.make(own, folder, inputs, _TEMPLATE_MODEL, options)
            found["ours"].append(_ours(jobs.run(job, own), batch))
    return {name: _middle(runs) for name, runs in found.items()}


def _template(copy: Path, result: Path) -> tuple[Throughput, int]:
    command = ["-m", "benchmarks.template_fit", str(copy), str(_TEMPLATE_STEPS), str(result)]
    processes.run(command, loading.PROJECT)
    found = json.loads(result.read_text())
    (_, first, _), begin, end = found["marks"]
    rate = Rate((end[0] - begin[0]) * found["batch"], end[1] - begin[1], end[2] - begin[2])
    return Throughput(rate, first - found["started"]), found["batch"]


def _ours(events: list[Event], batch: int) -> Throughput:
    until_first = jobs.first(events, "steps")["time"] - jobs.first(events, "imported")["time"]
    return Throughput(jobs.steady(events, batch, template_fit.SETTLED), until_first)


def _middle(runs: list[Throughput]) -> Throughput:
    return sorted(runs, key=lambda run: run.rate.per_second)[len(runs) // 2]


def checkpoints(data: Path, folder: Path, step: Step) -> dict[str, float]:
    """Seconds for a checkpoint with early stopping on, by model."""
    found = {}
    for name, model, every, steps in (("taxi", TAXI, 50, 1000), ("large", LARGE, 10, 200)):
        with step(f"checkpoints, hidden layers {model['hidden']}"):
            options = {
                "steps": steps,
                "global_batch_size": BATCH,
                "checkpoints": {"every_steps": every, "every_seconds": None},
                "early_stopping": {"patience": 1},
            }
            own = folder / name
            job = jobs.make(own, data, training_rows.INPUTS, model, options)
            found[name] = statistics.median(_pauses(jobs.run(job, own), every))
    return found


def _pauses(events: list[Event], every: int) -> list[float]:
    """Seconds that the loop stood still for a checkpoint, each time but the last."""
    begun = {event["step"]: event["time"] for event in events if event["what"] == "steps"}
    over = {event["step"]: event["time"] for event in events if event["what"] == "pause over"}
    return [over[step] - begun[step] for step in sorted(over)[:-1] if step % every == 0]


def resume(data: Path, folder: Path, step: Step) -> dict[str, dict[str, float]]:
    """Seconds from the start of a job to what it reaches first: afresh, and after a kill -9."""
    found: dict[str, list[dict[str, float]]] = {"fresh": [], "resumed": []}
    for number in range(_REPEATS):
        with step(f"a start, a kill and a resume, {number + 1} of {_REPEATS}"):
            options = {
                "steps": 100_000,
                "global_batch_size": BATCH,
                "checkpoints": {"every_steps": 500, "every_seconds": None},
            }
            own = folder / str(number)
            job = jobs.make(own, data, training_rows.INPUTS, TAXI, options)
            found["fresh"].append(_until_first_step(job, own, saved_at=1000))
            found["resumed"].append(_until_first_step(job, own, saved_at=None))
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }


def _until_first_step(job: Job, folder: Path, saved_at: int | None) -> dict[str, float]:
    """Runs until a checkpoint of that step, or until the first step."""
    running = jobs.Running(job, folder)
    if saved_at:
        events = running.kill_when(lambda e: e["what"] == "pause over" and e["step"] >= saved_at)
    else:
        events = running.kill_when(lambda e: e["what"] == "steps")
    return first_times(running, events)


def first_times(running: jobs.Running, events: list[Event]) -> dict[str, float]:
    """Seconds from the start of a process to the end of its imports, set-up and first step."""
    names = {"imports": "imported", "rows, model, checkpoint": "run", "first step": "steps"}
    return {
        name: jobs.first(events, what)["time"] - running.started for name, what in names.items()
    }


def strategies(data: Path, folder: Path, step: Step) -> dict[str, Rate]:
    """The rate of each strategy at the same global batch, and of rows from disk."""

    def job(options: dict[str, Any], own: Path) -> Job:
        options = options | {"steps": _STRATEGY_STEPS, "global_batch_size": BATCH}
        return jobs.make(own, data, training_rows.INPUTS, TAXI, options)

    found = {}
    alone: dict[str, tuple[dict[str, Any], int]] = {
        ONE_DEVICE: ({}, 1),
        FROM_DISK: ({"memory_mib": _SMALL_MEMORY_MIB}, 1),
        "mirrored, 2 logical devices": ({"strategy": "mirrored"}, 2),
    }
    for number, (name, (options, devices)) in enumerate(alone.items()):
        own = folder / str(number)
        with step(name):
            events = jobs.run(job(options, own), own, devices)
        found[name] = jobs.steady(events, BATCH, template_fit.SETTLED)
    own, name = folder / "workers", "multi_worker, 2 processes"
    with step(name):
        events = jobs.run_workers(job({"strategy": "multi_worker"}, own), own, workers=2)
    found[name] = jobs.steady(events, BATCH, template_fit.SETTLED)
    return found


class Large(NamedTuple):
    """A training of many rows, killed in the middle and gone on with."""

    rows: int
    windows: int
    """1: all rows are in memory."""
    until_first: float
    """Seconds from the end of the imports to the end of the first step: the rows are read."""
    rate: Rate
    evaluation: float
    """Seconds."""
    resumed_at: int
    resumed: dict[str, float]
    """As `first_times`."""
    above_start: int
    """Bytes at the highest, of both processes, above what their imports take."""


def large(rows: int, folder: Path, step: Step) -> Large:
    """One pass over many rows with the default settings; killed after 40 %, and gone on with."""
    data, own = folder / "rows", folder / "run"
    with step(f"{rows:,} rows: writing them"):
        training_rows.write(data, rows)
    options = {
        "epochs": 1,
        "global_batch_size": BATCH,
        "checkpoints": {"every_steps": _SAVED_EVERY},
    }
    job = jobs.make(own, data, training_rows.INPUTS, TAXI, options)
    with step(f"{rows:,} rows: a kill at 40 %"):
        killed = jobs.Running(job, own).kill_when(
            lambda e: (
                e["what"] == "pause over"
                and e["step"] % _SAVED_EVERY == 0
                and e["step"] >= 0.4 * rows / BATCH
            )
        )
    with step(f"{rows:,} rows: gone on with"):
        running = jobs.Running(job, own)
        resumed = running.wait()
    shutil.rmtree(folder)
    return _large(killed, resumed, first_times(running, resumed))


def _large(killed: list[Event], resumed: list[Event], times: dict[str, float]) -> Large:
    begun = jobs.first(resumed, "run")
    return Large(
        rows=begun["rows"],
        windows=begun["windows"],
        until_first=jobs.first(killed, "steps")["time"] - jobs.first(killed, "imported")["time"],
        rate=jobs.steady(killed, BATCH, template_fit.SETTLED),
        evaluation=jobs.first(resumed, "evaluated")["seconds"],
        resumed_at=begun["step"],
        resumed=times,
        above_start=max(_above_start(killed), _above_start(resumed)),
    )


def _above_start(events: list[Event]) -> int:
    return max(int(e["highest"]) for e in events) - int(jobs.first(events, "imported")["resident"])


def rows_below_limit() -> int:
    """How many rows are just kept in memory by default."""
    row = core_data.Layout.of(training_rows.INPUTS).row_bytes
    return int(0.99 * Training.model_fields["memory_mib"].default * core_data.MIB / row)
