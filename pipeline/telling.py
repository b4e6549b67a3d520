"""What a person sees: a line for each component, tables of metrics, and what to type next.

The process's own output (TensorFlow and TFX write thousands of lines) goes to a log file; the
console keeps the terminal.
"""

import errno
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from components.errors import PipelineStop
from pipeline.command_line import DEFAULT
from pipeline.parts import PROJECT

Outcome = Literal["done", "cached", "failed", "skipped"]
BySlice = Mapping[str, Mapping[str, Any]]
"""A model's metrics: {slice: {metric: value, or None where it cannot be computed}}."""

OVERALL = "overall"
"""The slice of all rows."""

_STYLES: dict[Outcome, str] = {"done": "green", "cached": "cyan", "failed": "red", "skipped": "dim"}


@contextmanager
def output_to(log: Path | str = os.devnull) -> Iterator[Console]:
    """Sends file descriptors 1 and 2 to `log`, and yields a console on the old output."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(log, "ab", buffering=0) as file, os.fdopen(saved[0], "w", closefd=False) as out:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield Console(file=out, highlight=False, soft_wrap=True)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            out.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
    for descriptor in saved:
        os.close(descriptor)


class RunLines(logging.Handler):
    """A line for each component as it ends, and a live one for the component that runs.

    It is a handler of the `progress` logger too: what a component says there joins the live line.
    """

    def __init__(self, console: Console):
        """Takes the console to write to."""
        super().__init__(logging.INFO)
        self._console = console
        self._name = ""
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task("", detail="", visible=False)

    def __enter__(self) -> "RunLines":
        """Starts the live line."""
        self._live.start()
        logging.getLogger("progress").addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the live line."""
        logging.getLogger("progress").removeHandler(self)
        self._live.stop()

    def started(self, name: str) -> None:
        """Shows a component as running."""
        self._name = name
        self._live.reset(self._task, description=f"{name:<18} running", detail="", visible=True)

    def ended(self, name: str, outcome: Outcome, seconds: float) -> None:
        """Prints a component's outcome."""
        self._live.update(self._task, visible=False)
        took = "" if outcome == "skipped" else f"{seconds:7.1f} s"
        self._console.print(f"  {name:<18} [{_STYLES[outcome]}]{outcome:<7}[/] {took}")

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a line of progress; a warning stays."""
        if record.levelno >= logging.WARNING:
            self._console.print(f"  {self._name}: {record.getMessage()}", markup=False)
        else:
            self._live.update(self._task, detail=record.getMessage())

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A component's two lines around something that is none."""
        started = time.monotonic()
        self.started(name)
        yield
        self.ended(name, "done", time.monotonic() - started)


def reason(error: BaseException | None) -> str:
    """Why a component failed, for a person: a message of ours, or the last words of another."""
    while error is not None:
        if isinstance(error, PipelineStop):
            return str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"The disk of {error.filename or 'the workspace'} is full. Free some: make gc"
        if error.__cause__ is None:
            break
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(lines[-1].split())}"


def new_console() -> Console:
    """A console that cuts nothing off: what is too long for the terminal goes on below."""
    return Console(highlight=False, soft_wrap=True, markup=False)


def table(*headings: str, left: int = 1) -> Table:
    """An unboxed table; its first columns are texts that give way, the others numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in headings[:left]:
        made.add_column(heading, min_width=len(heading), overflow="fold")
    for heading in headings[left:]:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def metrics_table(
    heading: str,
    metrics: Mapping[str, BySlice],
    places: Iterable[tuple[str, str, str]],
    titles: Mapping[str, str],
    rows: Mapping[str, int] | None = None,
) -> Table:
    """Metrics by model: a column for each model.

    Args:
      heading: of the first column.
      metrics: by model; a value may be a text already.
      places: a line each: its title, the slice and the metric.
      titles: what each model is called, where that is not its name.
      rows: how many there are in each slice, for a column of them.
    """
    counted = [] if rows is None else ["rows"]
    made = table(heading, *counted, *(titles.get(model, model) for model in metrics))
    for title, place, metric in places:
        count = [] if rows is None else [f"{rows[place]:,}" if place in rows else "-"]
        values = (number(by.get(place, {}).get(metric)) for by in metrics.values())
        made.add_row(Text(title), *count, *values)
    return made


def print_whole(console: Console, made: Table) -> None:
    """Prints a table, nothing of it left out however narrow the terminal."""
    before, needed = console.width, Console(width=10_000).measure(made).maximum
    console.width = max(needed, before)
    console.print(made, soft_wrap=True)
    console.width = before


def overall(by_slice: BySlice) -> list[tuple[str, str, str]]:
    """`places` of a metrics table: every metric over all rows."""
    return [(metric, OVERALL, metric) for metric in by_slice.get(OVERALL, {})]


def worst_slices(by_slice: BySlice, metric: str) -> list[str]:
    """The slices in which a metric can be computed, the worst first."""
    sign = direction(metric) or 1
    values = {name: found[metric] for name, found in by_slice.items() if is_number(found, metric)}
    values.pop(OVERALL, None)
    return sorted(values, key=lambda name: (sign * values[name], name))


def direction(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is, 0 if neither."""
    from components.evaluation.thresholds import METRICS

    known = METRICS.get(metric)
    better = known.higher_is_better if known else None
    return 0 if better is None else 1 if better else -1


def is_number(values: Mapping[str, Any], metric: str) -> bool:
    """Whether a metric could be computed."""
    return isinstance(values.get(metric), int | float)


def number(value: Any) -> str:
    """A metric's value; '-' is one that cannot be computed, or is not there."""
    if isinstance(value, str):
        return value
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def tell_next(console: Console, commands: Mapping[str, str]) -> None:
    """The last lines of a command: what to type next, and what for."""
    console.print("Next:")
    width = max(36, *(len(command) + 1 for command in commands))
    for command, purpose in commands.items():
        console.print(f"  {command:<{width}} {purpose}")


def shown(path: Path) -> str:
    """The path as it is typed from the project's folder."""
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def make(target: str, config_name: str, more: str = "") -> str:
    """The make command for a configuration, as a person types it."""
    chosen = "" if config_name == DEFAULT else f"CONFIG={config_name}"
    return " ".join(filter(None, ("make", target, chosen, more)))
