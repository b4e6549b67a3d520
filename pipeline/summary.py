"""The last lines of a run: what was made, how good it is, where it is, and what to type next."""

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from components.evaluation.results import METRICS_FILE, describe
from components.evaluation.slices import OVERALL
from components.gate.component import REPORT_FILE
from components.ingest.component import COUNTS_FILE, QUARANTINE, QUARANTINED
from components.registry.lookup import TRAINING_FILE
from components.registry.push import PUSH_FILE
from components.registry.store import (
    CANDIDATE,
    CHAMPION,
    read_labels,
)
from pipeline.config import Config
from pipeline.console import make, shown, table, tell_next
from pipeline.loading import DEFAULT
from pipeline.local import Run
from pipeline.report import write_report
from pipeline.workspace import Workspace

_WORST_SLICES = 4
_REASONS = 3


def tell(
    run: Run, config_name: str, config: Config, workspace: Workspace, console: Console
) -> None:
    """Prints the summary of a finished run."""
    push = _read(run, "RegistryPush", "pushed", PUSH_FILE)
    evaluation = _read(run, "Evaluator", "evaluation", METRICS_FILE)
    _tell_warnings(_read(run, "Gate", "report", REPORT_FILE), console)
    bad = _read(run, "ExampleGen", "examples", COUNTS_FILE).get(QUARANTINED)
    _tell_quarantine(bad, Path(run.outputs["ExampleGen"]["examples"]), console)
    console.print()
    _tell_metrics(evaluation, console)
    _tell_slices(evaluation, console)
    for failure in evaluation["failures"]:
        console.print(f"[red]not blessed:[/] {escape(describe(failure))}")
    _tell_version(push, config, workspace, console)
    if run.outcomes["Trainer"] == "done":
        training = _read(run, "Trainer", "model", TRAINING_FILE)
        console.print(f"  {_checkpoints(training)}")
    report = write_report(workspace.reports, run.run_id, config, evaluation, push, bad)
    console.print(f"  {shown(report)} (features, and metrics of every slice)")
    cached = sum(outcome == "cached" for outcome in run.outcomes.values())
    seconds = sum(run.seconds.values())
    console.print(f"  {cached} of {len(run.outcomes)} components cached, {seconds:.1f} s in all\n")
    labels = read_labels(str(workspace.registry / config.registry.model))
    held = [label for label, version in labels.items() if version == push["version"]]
    _tell_what_next(push["version"], held, config_name, console)


def _read(run: Run, component: str, output: str, name: str) -> dict[str, Any]:
    with open(os.path.join(run.outputs[component][output], name), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _tell_warnings(report: dict[str, Any], console: Console) -> None:
    for warning in report["warnings"]:
        where = " ".join(filter(None, (warning["split"], warning["feature"])))
        console.print(f"[yellow]warning:[/] {escape(where)}: {escape(warning['what'])}")


def _tell_quarantine(bad: dict[str, Any] | None, examples: Path, console: Console) -> None:
    """How many rows were set aside, why, and where they are."""
    if not bad or not bad["rows"]:
        return
    share = f"{bad['rows']:,} of {bad['of']:,} rows ({bad['rows'] / bad['of']:.2%})"
    console.print(f"[yellow]quarantined:[/] {share}, left out of the examples")
    reasons = [f"{count:,} x {reason}" for reason, count in bad["reasons"].items()]
    for reason in reasons[:_REASONS] + (["…"] if len(reasons) > _REASONS else []):
        console.print(f"  {escape(reason)}")
    console.print(f"  head {shown(examples / QUARANTINE)}/*.jsonl    shows them")


def _tell_metrics(evaluation: dict[str, Any], console: Console) -> None:
    """A row a metric, a column a model: the candidate beside champion and heuristic."""
    models = evaluation["metrics"]
    heading = f"test split, {evaluation['rows'][OVERALL]:,} rows"
    lines = table(heading, *(_title(model, evaluation) for model in models))
    for metric in models["candidate"][OVERALL]:
        lines.add_row(metric, *(_number(models[m][OVERALL].get(metric)) for m in models))
    console.print(lines)


def _tell_slices(evaluation: dict[str, Any], console: Console) -> None:
    """The slices in which the first metric is lowest, if there are any."""
    models = evaluation["metrics"]
    candidate = models["candidate"]
    metric = next(iter(candidate[OVERALL]))
    slices = [s for s in candidate if s != OVERALL and candidate[s].get(metric) is not None]
    if not slices:
        return
    worst = sorted(slices, key=lambda name: candidate[name][metric])[:_WORST_SLICES]
    shown_of = f"lowest {metric} by slice ({len(worst)} of {len(slices)})"
    lines = table(shown_of, "rows", *(_title(model, evaluation) for model in models))
    for name in worst:
        values = (_number(models[m].get(name, {}).get(metric)) for m in models)
        lines.add_row(escape(name), f"{evaluation['rows'][name]:,}", *values)
    console.print()
    console.print(lines)


def _title(model: str, evaluation: dict[str, Any]) -> str:
    champion = f"champion (v{evaluation['baseline']['version']})"
    return {"candidate": "this model", "baseline": champion}.get(model, model)


def _tell_version(
    push: dict[str, Any], config: Config, workspace: Workspace, console: Console
) -> None:
    folder = workspace.registry / config.registry.model
    version = push["version"]
    console.print()
    if version is None:
        console.print(f"No version was filed in {shown(folder)}: {push['reason']}.")
        return
    made = "filed as" if push["pushed"] else "is already"
    label = ", now champion" if push["promoted"] else ", now candidate" if push["pushed"] else ""
    console.print(f"[bold]The model {made} version {version}{label}[/] ({push['reason']})")
    console.print(f"  {shown(folder / str(version))} (SavedModel; manifest.json says what made it)")


def _checkpoints(training: dict[str, Any]) -> str:
    """What saving cost, and where the training went on after an end before its time."""
    record = training["checkpoints"]
    share = record["seconds"] / max(training["seconds"], 0.001)
    count = "1 checkpoint" if record["saved"] == 1 else f"{record['saved']} checkpoints"
    saved = f"{count} ({share:.1%} of that)" if record["saved"] else "no checkpoint was due"
    resumed = ", ".join(f"{step:,}" for step in record["resumed_at"])
    went_on = f"; went on at step {resumed}" if resumed else ""
    return f"{training['steps']:,} steps in {training['seconds']:,.1f} s, {saved}{went_on}"


def _tell_what_next(
    version: int | None, held: list[str], config_name: str, console: Console
) -> None:
    commands = {make("tensorboard", config_name): "the training curves"}
    if CANDIDATE in held:
        commands[make("promote", config_name, f"VERSION={version}")] = "make it the champion"
    if CHAMPION in held:
        commands[make("serve", config_name)] = "serve the champion"
    commands[make("versions", config_name)] = "all versions and their labels"
    if config_name == DEFAULT:
        commands["make run-local CONFIG=automated"] = "all rows, and promotion of what is blessed"
    tell_next(console, commands)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
