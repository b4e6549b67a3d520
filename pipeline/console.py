"""What a person sees of a run: one line for each component, then a summary.

The process's own output (TensorFlow and TFX write thousands of lines) goes to a log file; the
console keeps the terminal.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.loading import DEFAULT, PROJECT

Outcome = Literal["done", "cached", "failed", "skipped"]

_STYLES: dict[Outcome, str] = {"done": "green", "cached": "cyan", "failed": "red", "skipped": "dim"}


@contextmanager
def output_to(log: Path) -> Iterator[Console]:
    """Sends file descriptors 1 and 2 to `log`, and yields a console on the old output."""
    log.parent.mkdir(parents=True, exist_ok=True)
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


def table(*headings: str) -> Table:
    """An unboxed table whose columns but the first, which gives way, are numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2))
    made.add_column(headings[0], min_width=len(headings[0]))
    for heading in headings[1:]:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


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
