"""The commands `continued-evaluation` (judges and follows) and `evaluations` (lists all)."""

import json
import logging
import os
from datetime import datetime
from pathlib import Path

from rich.console import Console

from components.continued_evaluation import history, telling
from components.errors import NothingToDo
from pipeline import loading
from pipeline import run as training
from pipeline.config import Config
from pipeline.telling import output_to, shown
from pipeline.workspace import Workspace

LOOK = 3
"""The exit code if a person has to look."""


def main(config_name: str, overrides: list[str], span: int | None) -> int:
    """Evaluates, decides, and does what the decision asks for.

    Args:
      config_name: the training pipeline's configuration.
      overrides: of it.
      span: which; None for the newest.

    Returns:
      The exit code: 0 done, 1 something failed, 3 a person has to look.

    Raises:
      PipelineStop: the settings are wrong; nothing was started.
    """
    return training.interruptible(lambda: _main(config_name, overrides, span))


def _main(config_name: str, overrides: list[str], span: int | None) -> int:
    wanted = "newest" if span is None else span
    config = loading.load(config_name, [*overrides, f"data.spans={wanted}"])
    training.check_against_schema(config)
    workspace = Workspace(loading.PROJECT / config.workspace)
    started = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    log = workspace.logs / f"{config.name}-continued-evaluation-{started}.log"
    workspace.make()
    model = str(workspace.registry / config.registry.model)
    history.settle(model)
    with output_to(log) as console:
        console.print(f"{config.registry.model}: fresh rows of {config.data.path}, {shown(log)}")
        try:
            record = evaluate(config, workspace, console, log)
        except NothingToDo as stop:
            console.print(f"\n{stop}", markup=False)
            return 0 if span is None else training.FAILED
        if record is None:
            return training.FAILED
        telling.tell(record, model, console)
        code = follow(record, model, config_name, overrides, console, log)
        telling.tell_last(model, config_name, config, workspace, console)
    return code


def list_evaluations(config_name: str, overrides: list[str], as_json: bool) -> int:
    """Prints a row for each evaluation and writes the page; or prints all as JSON.

    Raises:
      PipelineStop: The configuration has mistakes, or an evaluation is damaged.
    """
    config = loading.load(config_name, overrides)
    workspace = Workspace(loading.PROJECT / config.workspace)
    model = workspace.registry / config.registry.model
    records = history.read_all(str(model))
    if as_json:
        outcomes = (history.followed(str(model), record.id) for record in records)
        told = [
            record.model_dump(mode="json") | {"followed": came and came.model_dump(mode="json")}
            for record, came in zip(records, outcomes, strict=True)
        ]
        print(json.dumps(told, indent=1))
    elif not records:
        print(f"No version in {shown(model)} has been evaluated on fresh data yet.")
    else:
        console = Console(highlight=False)
        console.print(f"{shown(model)}\n")
        telling.tell_all(records, str(model), console)
        telling.tell_last(str(model), config_name, config, workspace, console)
    return 0


def evaluate(
    config: Config, workspace: Workspace, console: Console, log: Path
) -> history.Record | None:
    """Runs the graph; None if a component failed, which was told.

    Args:
      config: With the span in `data.spans`.
      workspace: Where it runs; it is locked meanwhile.
      console: For the person.
      log: Where everything else goes.

    Raises:
      NothingToDo: The champion was trained on the span.
    """
    with training.lines_in(workspace, console) as lines:
        with lines.step("(loading TFX)"), training.without_collecting():
            from components.continued_evaluation import graph
        logging.basicConfig(level=logging.INFO, force=True)
        pipeline = graph.create_pipeline(config, workspace)
        done = training.run_graph(pipeline, graph.UNCACHED, lines, console, log)
    if isinstance(done, int):
        return None
    path = Path(done.outputs["Decide"]["decided"], graph.RECORD_FILE)
    return history.Record.model_validate_json(path.read_text())


def follow(
    record: history.Record,
    model: str,
    config_name: str,
    overrides: list[str],
    console: Console,
    log: Path,
) -> int:
    """Does what the decision asks for, once; the exit code, as of `main`, comes back.

    Args:
      record: The evaluation.
      model: `registry/<model>`.
      config_name: The training pipeline's configuration.
      overrides: Of it.
      console: For the person.
      log: Where everything else goes.
    """
    settings = loading.load(config_name, overrides).part("continued_evaluation")
    due = history.due(model, record, settings)
    if due == "roll_back":
        to = history.roll_back(model, record)
        console.print(f"[bold]Rolled back: version {to} is champion again.[/]")
    if due != "retrain":
        return LOOK if due == "look" else 0
    config = loading.load(config_name, [*overrides, *retraining_overrides(record)])
    console.print(f"\nRetraining on the spans up to {record.evidence.span}:")
    workspace = Workspace(loading.PROJECT / config.workspace)
    code = training.train(config_name, config, workspace, console, log)
    if code not in (0, training.NOT_BLESSED):
        return LOOK if code == training.REFUSED else code
    history.settle(model)
    if history.followed(model, record.id) is None:
        history.note_version(model, record, None)
    return 0


def retraining_overrides(record: history.Record) -> list[str]:
    """The settings of a retraining, as `--set` takes them.

    Its candidate and the champion are compared on the newest span's test rows alone: by the row
    hash those are in nobody's training rows.
    """
    wanted, found = history.retraining(record), []
    if wanted.spans:
        spans = json.dumps(wanted.spans)
        # Twice: a setting's parts would be merged with those that are there.
        found += ["data.spans=newest", f"data.spans={spans}", "data.test_spans=newest"]
    if wanted.warm_start:
        found.append(f"training.warm_start={{version: {wanted.warm_start}}}")
    return found
