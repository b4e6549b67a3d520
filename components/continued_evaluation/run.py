"""The commands `continued-evaluation` (judges and follows) and `evaluations` (lists all)."""

import json
import logging
import os
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from components.continued_evaluation import history
from components.continued_evaluation.decision import Action
from components.continued_evaluation.evidence import OVERALL, Moved
from components.continued_evaluation.history import Record
from components.errors import NothingToDo
from components.registry import store
from pipeline import imports, loading
from pipeline import run as training
from pipeline.config import Config
from pipeline.telling import (
    BySlice,
    make,
    metrics_table,
    output_to,
    overall,
    shown,
    table,
    tell_next,
)
from pipeline.workspace import Workspace

LOOK = 3
"""The exit code if a person has to look."""
TITLES: dict[Action, str] = {
    "investigate": "Investigate",
    "roll_back": "Roll back",
    "retrain": "Retrain",
    "keep": "Keep",
}
"""The decisions, the weightiest first."""
_STYLES = {"investigate": "red", "roll_back": "red", "retrain": "yellow", "keep": "green"}
_DRIFTS, _REASON = 4, 80


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
        tell(record, console)
        code = follow(record, model, config_name, overrides, console, log)
        tell_last(model, config_name, config, workspace, console)
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
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    elif not records:
        print(f"No version in {shown(model)} has been evaluated on fresh data yet.")
    else:
        console = Console(highlight=False)
        console.print(f"{shown(model)}\n")
        tell_all(records, console)
        tell_last(str(model), config_name, config, workspace, console)
    return 0


def evaluate(config: Config, workspace: Workspace, console: Console, log: Path) -> Record | None:
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
        with lines.step("(loading TFX)"), imports.no_more_than_needed():
            from components.continued_evaluation import graph
        logging.basicConfig(level=logging.INFO, force=True)
        pipeline = graph.create_pipeline(config, workspace)
        done = training.run_graph(pipeline, graph.UNCACHED, lines, console, log)
    if isinstance(done, int):
        return None
    decided = Path(done.outputs["Decide"]["decided"], graph.RECORD_FILE).read_text()
    return history.read(str(workspace.registry / config.registry.model), json.loads(decided)["id"])


def follow(
    record: Record,
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
        what = "retrained; the new model was not blessed, and no version was filed"
        history.note(model, record, what)
    return 0


def retraining_overrides(record: Record) -> list[str]:
    """The settings of a retraining, as `--set` takes them.

    Its candidate and the champion are compared on the newest span's test rows alone: by the row
    hash those are in nobody's training rows.
    """
    wanted, found = history.retraining(record), []
    if wanted["spans"]:
        spans = json.dumps(wanted["spans"])
        # Twice: a setting's parts would be merged with those that are there.
        found += ["data.spans=newest", f"data.spans={spans}", "data.test_spans=newest"]
    if wanted["warm_start"]:
        found.append(f"training.warm_start={{version: {wanted['warm_start']}}}")
    return found


def metrics_to_show(records: Sequence[Record]) -> list[str]:
    """The metrics that have a limit, the newest evaluation's first; if none has, one metric."""
    limits = (limit for record in reversed(records) for limit in record.settings["limits"])
    measured = list(records[-1].evidence.judged[OVERALL])
    limited = list(dict.fromkeys(limit["metric"] for limit in limits))
    return limited or (["auc"] if "auc" in measured else measured[:1])


def _farthest(record: Record) -> list[Moved]:
    """The columns that are nearest to their limits or beyond, the farthest first."""
    return sorted(record.evidence.moved, key=lambda moved: moved.share, reverse=True)


def tell(record: Record, console: Console) -> None:
    """Prints metrics over all rows, drift, and the decision with its reasons."""
    found = record.evidence
    titles = {
        "logged": f"v{found.champion} as logged",
        "champion": f"champion (v{found.champion})",
        "previous": f"previous (v{found.previous})",
        "heuristic": "heuristic",
    }
    values: dict[str, BySlice] = {
        title: {OVERALL: {name: str(v) for name, v in found.metrics[model][OVERALL].items()}}
        for model, title in titles.items()
        if model in found.metrics
    }
    values["at promotion"] = found.promoted.get("champion", {})
    heading = f"span {found.span}, {found.rows.total:,} rows"
    metrics = metrics_table(heading, values, overall(next(iter(values.values()))), {})
    drift = table("drift (the largest)", "against", "value", "limit")
    for one in _farthest(record)[:_DRIFTS]:
        drift.add_row(escape(one.column), one.against, f"{one.value:.3f}", f"{one.limit:g}")
    for lines in (metrics, drift):
        if lines.row_count:
            console.print()
            console.print(lines)
    title = Text(TITLES[record.decision.action].lower(), f"bold {_STYLES[record.decision.action]}")
    console.print(f"\nVersion {found.champion} on span {found.span}:", title)
    for reason in record.decision.reasons:
        console.print(f"  {escape(reason.text)} [dim]({reason.leads_to.replace('_', ' ')})[/]")
    if record.followed:
        console.print(f"  {record.followed.time}: {escape(record.followed.what)}")


def tell_all(records: Sequence[Record], console: Console) -> None:
    """Prints a row for each evaluation, oldest first."""
    metric = metrics_to_show(records)[0]
    lines = table("span", "rows", "version", metric, "worst drift", "decision")
    for column in lines.columns[3:]:
        column.justify, column.no_wrap, column.overflow = "left", False, "fold"
    for record in records:
        moved = next(iter(_farthest(record)), None)
        lines.add_row(
            record.span_name,
            f"{record.evidence.rows.total:,}",
            str(record.evidence.champion),
            str(record.evidence.judged.get(OVERALL, {}).get(metric, "-")),
            Text(f"{moved.column} {moved.value:.3f} / {moved.limit:g}" if moved else "-"),
            _decision(record),
        )
    console.print(lines, soft_wrap=False)


def _decision(record: Record) -> Text:
    """The decision and its first reason, shortened; below them what came of it."""
    action, reasons = record.decision.action, record.decision.reasons
    text = Text.assemble((TITLES[action].lower(), _STYLES[action]))
    if reasons:
        more = f" (+{len(reasons) - 1})" if len(reasons) > 1 else ""
        text.append(f": {textwrap.shorten(reasons[0].text, _REASON, placeholder=' …')}{more}")
    if record.followed is not None or action != "keep":
        text.append(f"\n-> {record.outcome}")
    return text


def tell_last(
    model: str, config_name: str, config: Config, workspace: Workspace, console: Console
) -> None:
    """Writes the page, and prints where it is and what to type next."""
    from components.continued_evaluation import page

    records = history.read_all(model)
    path = page.write_page(records, config.registry.model, workspace)
    console.print(f"\n{shown(history.path_of(model, records[-1].id))} (all that was found)")
    console.print(f"{shown(path)} (every evaluation so far, drawn)\n")
    tell_next(console, _commands(records[-1], model, config_name))


def _commands(newest: Record, model: str, config_name: str) -> dict[str, str]:
    """What to type next, after the newest decision."""
    action, came = newest.decision.action, newest.followed
    commands = {make("evaluations", config_name): "the history"}
    if came is None and action == "roll_back":
        purpose = f"bring version {newest.evidence.previous} back"
        commands[make("rollback", config_name)] = purpose
    if came is None and action == "retrain":
        commands[make("run-local", config_name)] = "train a successor"
    candidate = store.read_labels(model).get(store.CANDIDATE)
    if came and came.version is not None and came.version == candidate:
        commands[make("promote", config_name, f"VERSION={candidate}")] = "make it the champion"
    commands[f"python3 -m pipeline evaluations --json -c {config_name}"] = "all, for programs"
    commands[make("versions", config_name)] = "all versions and their labels"
    return commands
