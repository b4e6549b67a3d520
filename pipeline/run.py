"""`python -m pipeline run`: checks the settings, runs the graph here, and says what came of it."""

import atexit
import gc
import logging
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from components.errors import NothingToDo, PipelineStop
from components.evaluation.heuristic import heuristic_problems
from components.registry.signature import column_types
from components.trainer.core.interruption import START_AGAIN
from pipeline import imports, loading, parts, schema
from pipeline.config import Config
from pipeline.telling import RunLines, output_to, reason, shown
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

    from pipeline.local import Run

FAILED, NOT_BLESSED, REFUSED = 1, 3, 4
"""Exit codes of a run whose component failed; that came to its end and filed no version, because
the model was not blessed; and that the gate stopped, because the data do not fit the schema."""


def run(config_name: str, overrides: list[str]) -> int:
    """Runs the pipeline of a configuration; the exit code of the process comes back.

    Raises:
      PipelineStop: the settings or the schema are wrong; nothing was started.
    """
    return interruptible(lambda: _run(config_name, overrides))


def interruptible(work: Callable[[], int]) -> int:
    """Does the work of a command that goes on when it is typed again; its exit code comes back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except KeyboardInterrupt:
        print("\nInterrupted. What is finished is kept; the same command goes on.", flush=True)
        return START_AGAIN


def _run(config_name: str, overrides: list[str]) -> int:
    config = loading.load(config_name, overrides)
    check_against_schema(config)
    workspace = Workspace(loading.PROJECT / config.workspace)
    log = workspace.logs / f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}-{_process()}.log"
    workspace.make()
    atexit.register(gc.freeze)  # else the last collection, at the exit, takes two seconds
    with output_to(log) as console:
        console.print(f"{config.name}: from {config.data.path}, log in {shown(log)}")

        return train(config_name, config, workspace, console, log)


def train(
    config_name: str, config: Config, workspace: Workspace, console: Console, log: Path
) -> int:
    """Runs the training pipeline; the exit code comes back.

    Args:
      config_name: for the commands that are printed.
      config: the settings.
      workspace: where it runs; it is locked meanwhile.
      console: for the person.
      log: where everything else goes.
    """

    def run_here() -> int:
        return _run_in(config_name, config, workspace, console, log)

    part = parts.of_strategy(config.training.strategy)
    if part is None or not hasattr(part, "take_part"):
        return run_here()
    folder = str(workspace.checkpoints)
    return int(
        part.take_part(folder, run_here, lambda text: console.print(f"  {text}", markup=False))
    )


def _process() -> str:
    """A name for this process; machines of a cluster share the workspace, not the numbers."""
    host = f"{socket.gethostname()}-" if os.environ.get("TF_CONFIG") else ""
    return f"{host}{os.getpid()}"


def check_against_schema(config: Config) -> None:
    """Looks for what the settings name and the schema does not have.

    Raises:
      PipelineStop: lists every mistake.
    """
    types = column_types(schema.read_schema(loading.PROJECT / config.schema_file))
    mistakes = [
        f"  {'.'.join(('features', *path))}: {text}"
        for path, text in schema.table_problems(config.features, types)
    ]
    rule = config.evaluation.heuristic
    mistakes += [
        f"  evaluation.heuristic: {text}"
        for text in heuristic_problems(rule, config.features, types)
    ]
    mistakes += [
        f"  evaluation.thresholds.{index}.slices: the schema has no column '{column}'"
        for index, threshold in enumerate(config.evaluation.thresholds)
        for column in threshold.slices or ()
        if column not in types
    ]
    if mistakes:
        raise PipelineStop(
            f"The configuration does not fit {config.schema_file}:\n" + "\n".join(mistakes)
        )


def _run_in(
    config_name: str, config: Config, workspace: Workspace, console: Console, log: Path
) -> int:
    with lines_in(workspace, console) as lines:
        with lines.step("(loading TFX)"), imports.no_more_than_needed():
            from components.trainer.core import strategy
            from pipeline import graph, summary
        logging.basicConfig(level=logging.INFO, force=True)
        try:
            strategy.check(config.training.model_dump())
        except strategy.StrategyError as error:
            raise PipelineStop(str(error)) from error
        for before in graph.to_train_before(config, workspace):
            train_before(before, config, lines, console, log)
        pipeline = graph.create_pipeline(config, workspace)

        def write_page(run: "Run", failure: str = "") -> Path | None:
            path = summary.write_page(run, pipeline, config_name, config, failure, shown(log))
            if path is None:
                console.print("[yellow]warning:[/] no page could be written; the log says why")
            return path

        done = run_graph(pipeline, graph.UNCACHED, lines, console, log, write_page)
        if isinstance(done, int):
            return done
        path = write_page(done)
    is_version = summary.tell(done, config_name, config, workspace, path, console)
    return 0 if is_version else NOT_BLESSED


def train_before(name: str, config: Config, lines: RunLines, console: Console, log: Path) -> None:
    """Runs the configuration of a model that a feature asks, and promotes what it files.

    Raises:
      PipelineStop: it filed none.
    """
    from pipeline import graph

    workspace = Workspace(loading.PROJECT / config.workspace)
    first = loading.load(name, [f"workspace={config.workspace}", "registry.promote=automatic"])
    check_against_schema(first)
    console.print(f"  first {name}, whose predictions are a feature:")
    pipeline = graph.create_pipeline(first, workspace)
    done = run_graph(pipeline, graph.UNCACHED, lines, console, log)
    if isinstance(done, int) or graph.to_train_before(config, workspace):
        raise PipelineStop(f"{name} filed no version. Look at it: make run-local CONFIG={name}")


@contextmanager
def lines_in(workspace: Workspace, console: Console) -> Iterator[RunLines]:
    """Locks the workspace, and shows a line for each component meanwhile."""

    def wait(holder: str) -> None:
        console.print(f"  waiting for {holder}, which uses {shown(workspace.root)}")

    with RunLines(console) as lines, workspace.locked(wait), workspace.temporary_files():
        workspace.check_metadata()
        yield lines


def run_graph(
    pipeline: "Pipeline",
    uncached: frozenset[str],
    lines: RunLines,
    console: Console,
    log: Path,
    write_page: "Callable[[Run, str], Path | None] | None" = None,
) -> "Run | int":
    """Runs a graph's components; if one failed, which was told, the exit code comes back.

    Args:
      pipeline: the graph.
      uncached: nodes that always run.
      lines: for a line each.
      console: for the person.
      log: where everything else goes.
      write_page: is called for a run that failed, with the reason; returns the page's path.

    Raises:
      NothingToDo: a component says so.
    """
    with imports.no_more_than_needed():
        from pipeline import local
    try:
        return local.run_pipeline(pipeline, uncached, lines)
    except local.ComponentFailed as failure:
        if isinstance(failure.__cause__, NothingToDo):
            raise failure.__cause__ from None
        started = set(failure.run.outcomes)
        skipped = [c.id for c in pipeline.components if c.id not in started]
        _tell_failure(failure, skipped, console, log)
        page = write_page and write_page(failure.run, reason(failure.__cause__))
        if page:
            console.print(f"{shown(page)} shows it.")
        refused = isinstance(failure.__cause__, PipelineStop) and failure.component == "Gate"
        return REFUSED if refused else FAILED


def _tell_failure(failure: Exception, skipped: list[str], console: Console, log: Path) -> None:
    logging.error("%s", "".join(traceback.format_exception(failure)))
    console.print(f"  {', '.join(skipped)}: not started" if skipped else "", style="dim")
    console.print(f"\n[red]{failure}[/] stopped the run.", highlight=False)
    console.print(escape(reason(failure.__cause__)))
    console.print(f"Log: {shown(log)}. What is finished is kept; the same command goes on.")
