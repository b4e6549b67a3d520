"""The tables of `python -m benchmarks.training`, and its targets."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import comparison, template, training_rows
from benchmarks import training_measures as measures
from benchmarks.jobs import Rate
from benchmarks.report import Target
from benchmarks.training_measures import Large, Throughput
from pipeline.telling import table

_TEMPLATE_ROWS = 15_002
_ROWS = 100_000
NOTES = """\
Input and fit: the same transformed rows, batch size and hidden layers, each in a fresh process, in
  turns; the middle of three runs. "steady": after the first 300 steps, without evaluations. The
  template has MirroredStrategy on its one device, ours none. Categories go to the last layer alone
  in the template, to the first one too in ours.
Checkpoints: how long the loop stands still, hashes and fsync included, and the share of the time at
  the default interval.
Strategies: their replicas share the processors of this machine, so they cost here what they would
  bring on several machines. Processor time of several processes: of one of them.
Memory: the highest resident memory above what the imports take."""

Found = tuple[dict[str, Any], list[Target]]


def measure_all(scratch: Path, step: measures.Step, console: Console) -> Found:
    """Everything but many rows: figures and targets."""
    with step("TFX's template, once"):
        comparison.write_rows(_TEMPLATE_ROWS, scratch)
        copy = scratch / "template"
        template.create(copy, scratch / "data", comparison.schema(), all_features=False)
        template.run(copy)
    found = measures.throughput(copy, scratch / "throughput", step)
    data = scratch / "rows"
    with step(f"writing {_ROWS:,} rows"):
        training_rows.write(data, _ROWS)
    saves = measures.checkpoints(data, scratch / "checkpoints", step)
    starts = measures.resume(data, scratch / "resume", step)
    rates = measures.strategies(data, scratch / "strategies", step)
    _tell_throughput(found, console)
    _tell_checkpoints(saves, console)
    _tell_starts(starts, console)
    _tell_strategies(rates, console)
    ratio = found["ours"].rate.per_second / found["template"].rate.per_second
    wanted = [Target("input and fit, times the template's", ratio, 4.0, True)]
    wanted += [
        Target(f"checkpoints of the {name} model, share", seconds / measures.DEFAULT_INTERVAL, 0.01)
        for name, seconds in saves.items()
    ]
    figures = {"throughput": _plain(found), "checkpoints": saves, "starts": starts}
    return figures | {"strategies": _plain(rates)}, wanted


def measure_rows(rows: int, scratch: Path, step: measures.Step, console: Console) -> Found:
    """Trainings of `rows` rows from disk, and of as many as stay in memory: figures and targets."""
    few = measures.rows_below_limit()
    found = [measures.large(count, scratch / str(count), step) for count in sorted({few, rows})]
    for run in found:
        _tell_large(run, console)
    above = max(run.above_start for run in found)
    limit = Target("memory above start-up, GiB", above / 2**30, 2.0)
    return {"large": [run._asdict() for run in found]}, [limit]


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value._asdict() for name, value in found.items()}


def _tell_throughput(found: dict[str, Throughput], console: Console) -> None:
    lines = table("\ninput and fit, batch 40", "template", "ours", "ratio")
    theirs, ours = found["template"], found["ours"]
    their_own, our_own = (f.rate.examples / f.rate.processor for f in (theirs, ours))

    def row(title: str, their: float, our: float, digits: int = 0) -> None:
        lines.add_row(title, f"{their:,.{digits}f}", f"{our:,.{digits}f}", f"{our / their:.2f}")

    row("examples/s, steady", theirs.rate.per_second, ours.rate.per_second)
    row("  by processor second", their_own, our_own)
    row("s until the first step is made", theirs.until_first, ours.until_first, 2)
    console.print(lines)


def _tell_checkpoints(saves: dict[str, float], console: Console) -> None:
    interval = measures.DEFAULT_INTERVAL
    lines = table("\na checkpoint", "ms", f"share, every {interval:g} s")
    for name, seconds in saves.items():
        lines.add_row(f"{name} model", f"{seconds * 1000:.0f}", f"{seconds / interval:.3%}")
    console.print(lines)


def _tell_starts(starts: dict[str, dict[str, float]], console: Console) -> None:
    lines = table("\ns from the start of the process", *starts)
    for name in starts["fresh"]:
        lines.add_row(f"to the end of: {name}", *(f"{s[name]:.2f}" for s in starts.values()))
    console.print(lines)


def _tell_strategies(rates: dict[str, Rate], console: Console) -> None:
    lines = table(
        f"\nbatch {measures.BATCH} over {os.cpu_count()} processors",
        "examples/s", "to one_device", "processor s/s",
    )  # fmt: skip
    base = rates[measures.ONE_DEVICE].per_second
    for name, rate in rates.items():
        ratio, used = rate.per_second / base, rate.processor / rate.seconds
        lines.add_row(name, f"{rate.per_second:,.0f}", f"{ratio:.2f}", f"{used:.2f}")
    console.print(lines)


def _tell_large(run: Large, console: Console) -> None:
    where = f"{run.windows} windows on disk" if run.windows > 1 else "in memory"
    lines = table(f"\n{run.rows:,} rows, {where}", "")
    lines.add_row("s until the first step is made", f"{run.until_first:.1f}")
    lines.add_row("examples/s after that", f"{run.rate.per_second:,.0f}")
    lines.add_row("s of an evaluation", f"{run.evaluation:.2f}")
    resumed = run.resumed["first step"]
    lines.add_row(f"s from a resume at step {run.resumed_at:,} to its first", f"{resumed:.1f}")
    lines.add_row("MiB above start-up", f"{run.above_start / 2**20:,.0f}")
    console.print(lines)
