"""What all benchmarks share: programs in fresh processes, their times and memory, tables."""

import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from pipeline import loading
from pipeline.run import NOT_BLESSED
from pipeline.telling import RunLines, output_to, shown, table
from pipeline.workspace import Workspace

CONFIG = "automated"
BEAM = [
    "--runner=FnApiRunner",
    "--direct_running_mode=in_memory",
    "--sdk_container_image=unused",  # Keeps TFX from packing its own source first.
]
_BUSY = 1.0
_IMPORTED = "(loading TFX)"
"""What a run of this pipeline prints once everything is imported."""


class ChildFailed(Exception):
    """A program ended with an error; what it printed is in the log."""


@dataclass
class Bench:
    """A benchmark at work: it tells each step, and keeps figures and targets for its end."""

    console: Console
    scratch: Path
    """For all that is written; removed at the end."""
    lines: RunLines
    figures: dict[str, Any] = field(default_factory=dict)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def step(self, what: str) -> AbstractContextManager[None]:
        """Says what runs now, and how long it took."""
        return self.lines.step(f"{what:<48}")

    def target(self, what: str, value: float, limit: float, at_least: bool = False) -> None:
        """Notes a figure that has a limit."""
        met = value >= limit if at_least else value <= limit
        bound = f"{'>=' if at_least else '<='} {limit:g}"
        self.targets.append({"what": what, "value": value, "limit": bound, "met": met})

    def tell(self, *heading: str, rows: Sequence[Sequence[object]]) -> None:
        """Prints a table; a float has two decimals, None is a dash."""
        made = table(*heading)
        for row in rows:
            made.add_row(*map(_cell, row))
        self.console.print(made)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
    return "-" if value is None else str(value)


@contextmanager
def bench(name: str) -> Iterator[Bench]:
    """Runs a benchmark: its output goes to a log, its figures to `reports/benchmark-NAME.json`.

    A missed target is no error. The process ends with 1 where something could not be run.
    """
    workspace = Workspace(loading.PROJECT / loading.load(CONFIG).workspace)
    workspace.make()
    log = workspace.logs / f"benchmark-{name}.log"
    log.unlink(missing_ok=True)
    with output_to(log) as console, tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        os.environ["TMPDIR"] = scratch  # Beam and TensorFlow leave files behind.
        processors, load = os.cpu_count(), os.getloadavg()[0]
        console.print(f"{processors} processors, load {load:.1f}")
        if load > _BUSY:
            console.print("[yellow]The machine is busy with something else: times mislead.[/]")
        try:
            with RunLines(console) as lines:
                made = Bench(console, Path(scratch), lines)
                yield made
        except ChildFailed as failure:
            console.print(f"\n{failure} What it printed is in {shown(log)}.", markup=False)
            raise SystemExit(1) from None
        if made.targets:
            rows = [[*target.values()] for target in made.targets]
            made.tell("\ntarget", "value", "limit", "met", rows=rows)
        known = {"processors": processors, "load": load, "targets": made.targets}
        path = workspace.reports / f"benchmark-{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known | made.figures, indent=1, default=str))
        console.print(f"\nAll figures: {shown(path)}")


@dataclass(frozen=True)
class Timed:
    """A program's run, in seconds."""

    wall: float
    processor: float
    """Of all its threads and children: steadier than `wall` on a busy machine."""
    until_marker: float = 0.0
    """From its start to the line that it was watched for."""
    components: dict[str, float] = field(default_factory=dict)
    """By pipeline node, as ML Metadata has them: from registering an execution to its end."""
    start: float = 0.0
    """From its start to its first component: imports, settings, the graph."""


def run(command: Sequence[str], folder: Path = loading.PROJECT, marker: str = "\0") -> Timed:
    """Runs a Python program and passes its output on.

    Args:
      command: What follows `python`.
      folder: The working folder.
      marker: Part of an output line whose time is wanted.

    Raises:
      ChildFailed: It did not end well.
    """
    # Off Google's machines the template's configs.py would wait for their metadata server.
    environment = os.environ | {"NO_GCE_CHECK": "true"}
    used, began, marked = _processor_seconds(), time.time(), 0.0
    with subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if marker in line:
                marked = time.time() - began
            print(line, end="", flush=True)
    if child.returncode not in (0, NOT_BLESSED):
        raise ChildFailed(f"python {' '.join(command)} ended with code {child.returncode}.")
    return Timed(time.time() - began, _processor_seconds() - used, marked)


def run_pipeline(command: Sequence[str], metadata: Path, folder: Path = loading.PROJECT) -> Timed:
    """Runs a program that runs a pipeline, and adds its components' times.

    Args:
      command: What follows `python`.
      metadata: The ML Metadata database that the pipeline writes.
      folder: The working folder.

    Raises:
      ChildFailed: It did not end well.
    """
    began = time.time()
    timed = run(command, folder, _IMPORTED)
    times = _executions(metadata, began)
    first = min(begin for begin, _ in times.values())
    seconds = {name: end - begin for name, (begin, end) in times.items()}
    return Timed(timed.wall, timed.processor, timed.until_marker, seconds, first - began)


def run_ours(workspace: Path, data: Path, *settings: str) -> Timed:
    """Runs this project's pipeline, as `make run-local CONFIG=automated` does."""
    chosen = (f"workspace={workspace}", f"data.path={data}", *settings)
    command = ["-m", "pipeline", "run", "--config", CONFIG, *(f"--set={s}" for s in chosen)]
    try:
        return run_pipeline(command, Workspace(workspace).metadata)
    except ChildFailed:
        for log in sorted(Workspace(workspace).logs.glob("*"))[-1:]:
            print(log.read_text())  # It would go with the workspace.
        raise


def _executions(metadata: Path, since: float) -> dict[str, tuple[float, float]]:
    """When each node's execution began and ended, in seconds since 1970."""
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(metadata)
    store = MetadataStore(config)
    found = {
        context.name.rpartition(".")[2]: execution
        for context in store.get_contexts_by_type("node")
        for execution in store.get_executions_by_context(context.id)
        if execution.create_time_since_epoch >= since * 1000
    }
    return {
        name: (e.create_time_since_epoch / 1000, e.last_update_time_since_epoch / 1000)
        for name, e in found.items()
    }


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Alone(NamedTuple):
    """Some work in a process of its own."""

    seconds: float
    """Without what it imports."""
    above_start: int
    """Bytes of memory at the highest, above what its imports take."""
    result: Any


def alone(step: Callable[[], Callable[[], Any]]) -> Alone:
    """Calls `step` in a fresh process, then times what it returned, and its memory.

    Raises:
      ChildFailed: it did not end well.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_alone, step).result()
        except BrokenProcessPool:
            raise ChildFailed(f"{step} did not end well.") from None


def _alone(step: Callable[[], Callable[[], Any]]) -> Alone:
    work = step()
    Path("/proc/self/clear_refs").write_text("5")  # the highest begins anew with what is there now
    start, begin = _highest(), time.perf_counter()
    result = work()
    return Alone(time.perf_counter() - begin, _highest() - start, result)


def _highest() -> int:
    """Bytes of memory that this process had at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0
