"""The last lines of a run: what was made, how good it is, where, what to type next."""

import json
import os
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from rich.console import Console
from rich.markup import escape
from tfx.orchestration.pipeline import Pipeline

from components.evaluation.results import METRICS_FILE, describe
from components.gate import REPORT_FILE
from components.ingest.component import COUNTS_FILE, QUARANTINE, QUARANTINED
from components.registry.lookup import TRAINING_FILE
from components.registry.push import PUSH_FILE
from components.registry.store import CANDIDATE, CHAMPION, read_labels
from pipeline.command_line import DEFAULT
from pipeline.config import Config
from pipeline.local import Run
from pipeline.page import writing
from pipeline.page.contents import Facts, properties
from pipeline.parts import PROJECT
from pipeline.telling import (
    OVERALL,
    direction,
    make,
    metrics_table,
    overall,
    shown,
    tell_next,
    worst_slices,
)
from pipeline.workspace import Workspace

_WORST_SLICES, _REASONS, _COLUMNS = 4, 3, 4


def tell(
    run: Run,
    config_name: str,
    config: Config,
    workspace: Workspace,
    page: Path | None,
    console: Console,
) -> bool:
    """Prints the summary of a finished run, and says whether the model is a version."""
    push = _read(run, "RegistryPush", "pushed", PUSH_FILE)
    evaluation = _read(run, "Evaluator", "evaluation", METRICS_FILE)
    for warning in _read(run, "Gate", "report", REPORT_FILE)["warnings"]:
        where = " ".join(filter(None, (warning["split"], warning["feature"])))
        console.print(f"[yellow]warning:[/] {escape(where)}: {escape(warning['what'])}")
    bad = _read(run, "ExampleGen", "examples", COUNTS_FILE).get(QUARANTINED)
    _tell_quarantine(bad, Path(run.outputs["ExampleGen"]["examples"]), console)
    _tell_metrics(evaluation, console)
    _tell_probes(evaluation, console)
    for failure in evaluation["failures"]:
        console.print(f"[red]not blessed:[/] {escape(describe(failure))}")
    _tell_version(push, workspace.registry / config.registry.model, console)
    if run.outcomes["Trainer"] == "done":
        console.print(f"  {_training(_read(run, 'Trainer', 'model', TRAINING_FILE))}")
    if page:
        console.print(f"  {shown(page)} (everything, drawn; make report opens all runs)")
    cached = sum(outcome == "cached" for outcome in run.outcomes.values())
    seconds = sum(run.seconds.values())
    console.print(f"  {cached} of {len(run.outcomes)} components cached, {seconds:.1f} s in all\n")
    _tell_what_next(push["version"], config_name, config, workspace, console)
    return push["version"] is not None


def write_page(
    run: Run, pipeline: Pipeline, config_name: str, config: Config, failure: str, log: str
) -> Path | None:
    """Writes the page of a run that came to its end or failed; its path, or None: see the log.

    Args:
      run: as far as it came.
      pipeline: its graph.
      config_name: the configuration.
      config: its settings.
      failure: why its last component failed; "" if none did.
      log: where everything else went.
    """
    workspace = Workspace(PROJECT / config.workspace)
    (push,) = (component for component in pipeline.components if component.id == "RegistryPush")
    recorded = ("code", "git_commit", "config_hash")
    steps = [(name, outcome, run.seconds[name]) for name, outcome in run.outcomes.items()]
    left = [(c.id, "not started", 0.0) for c in pipeline.components if c.id not in run.outcomes]
    store = MetadataStore(pipeline.metadata_connection_config)
    uri = run.outputs.get("ExampleGen", {}).get("examples")
    facts = Facts(
        run_id=run.run_id,
        config=config,
        outputs=run.outputs,
        registry=workspace.registry / config.registry.model,
        examples=properties(store.get_artifacts_by_uri(uri)[0]) if uri else {},
        provenance={name: push.exec_properties[name] for name in recorded},
        steps=[*steps, *left],
        changes=dict(writing.changes(config_name, config)),
        failure=failure,
        log=log,
    )
    return writing.write_run(facts, workspace)


def _read(run: Run, component: str, output: str, name: str) -> dict[str, Any]:
    with open(os.path.join(run.outputs[component][output], name), encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    return content


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
    """All metrics over all rows, then the first of them in the slices where it is worst."""
    metrics, rows = evaluation["metrics"], evaluation["rows"]
    own = metrics["candidate"]
    champion = f"champion (v{evaluation['baseline']['version']})"
    titles = {"candidate": "this model", "baseline": champion}
    heading = f"test split, {rows[OVERALL]:,} rows"
    console.print()
    console.print(metrics_table(heading, metrics, overall(own), titles))
    first = next(iter(own[OVERALL]))
    if slices := worst_slices(own, first):
        worst = [(place, place, first) for place in slices[:_WORST_SLICES]]
        most = "highest" if direction(first) < 0 else "lowest"
        heading = f"{most} {first} by slice ({len(worst)} of {len(slices)})"
        console.print()
        console.print(metrics_table(heading, metrics, worst, titles, rows))


def _tell_probes(evaluation: dict[str, Any], console: Console) -> None:
    """A line each for the importances and for what-if, if they were asked for."""
    if found := evaluation.get("importances"):
        most = sorted(found, key=found.__getitem__, reverse=True)[:_COLUMNS]
        told = ", ".join(f"{column} {found[column]:.4f}" for column in most)
        worse = f"{evaluation['importance_of']} is worse if shuffled"
        console.print(f"\nimportances ({worse}): {escape(told)}")
    if found := evaluation.get("what_if"):
        told = ", ".join(f"{column} {one['changed']:.1%}" for column, one in found.items())
        console.print(f"what if (predictions that change with the column alone): {escape(told)}")


def _tell_version(push: dict[str, Any], folder: Path, console: Console) -> None:
    version = push["version"]
    console.print()
    if version is None:
        console.print(f"[bold]No version was filed[/] in {shown(folder)}: {push['reason']}.")
        return
    made = "filed as" if push["pushed"] else "is already"
    label = ", now champion" if push["promoted"] else ", now candidate" if push["pushed"] else ""
    console.print(f"[bold]The model {made} version {version}{label}[/] ({push['reason']})")
    console.print(f"  {shown(folder / str(version))} (SavedModel; manifest.json says what made it)")


def _training(training: dict[str, Any]) -> str:
    """What saving cost, and where the training went on after an end before its time."""
    record = training["checkpoints"]
    share = record["seconds"] / max(training["seconds"], 0.001)
    count = "1 checkpoint" if record["saved"] == 1 else f"{record['saved']} checkpoints"
    saved = f"{count} ({share:.1%} of that)" if record["saved"] else "no checkpoint was due"
    resumed = ", ".join(f"{step:,}" for step in record["resumed_at"])
    went_on = f"; went on at step {resumed}" if resumed else ""
    return f"{training['steps']:,} steps in {training['seconds']:,.1f} s, {saved}{went_on}"


def _tell_what_next(
    version: int | None, config_name: str, config: Config, workspace: Workspace, console: Console
) -> None:
    commands = {make("tensorboard", config_name): "the training curves"}
    if version is None:
        training = config.training
        length = "epochs" if training.epochs else "steps"
        longer = f'SET="training.{length}={2 * (training.epochs or training.steps or 0)}"'
        commands |= {
            make("run-local", config_name, longer): "train longer, or with other settings",
            make("config", config_name): "all settings; evaluation.thresholds are the limits",
        }
    labels = read_labels(str(workspace.registry / config.registry.model))
    if version is not None and version == labels.get(CANDIDATE):
        commands[make("promote", config_name, f"VERSION={version}")] = "make it the champion"
    if version is not None and version == labels.get(CHAMPION):
        commands[make("serve", config_name)] = "serve the champion"
    commands[make("versions", config_name)] = "all versions and their labels"
    if config_name == DEFAULT:
        commands["make run-local CONFIG=automated"] = "all rows, and promotion of what is blessed"
    tell_next(console, commands)
