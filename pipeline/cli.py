"""The commands. Each imports what it needs when it is called, so that `--help` is quick."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import parts
from pipeline.command_line import AsJson, ConfigName, Overrides, command
from pipeline.predict import predict

app = typer.Typer(
    name="pipeline",
    help="Train, judge and file models: the workflow pipeline of this project.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_DAILY = "Daily"
_DATA = "Data and settings"
_MODELS = "Models"
_HOUSEKEEPING = "Housekeeping"


@command(app, _DAILY)
def run(config: ConfigName = "development", set_: Overrides = None) -> int:
    """Run the pipeline on this machine: from data to a judged, versioned model."""
    from pipeline import run as run_

    return run_.run(config, set_ or [])


@command(app, _DATA)
def schema(
    config: ConfigName = "development",
    set_: Overrides = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the schema file; without it, only show.")
    ] = False,
) -> int:
    """Infer the schema from the data, and show what differs from the curated one."""
    from pipeline.telling import output_to

    with output_to() as console:  # TensorFlow's words on starting
        from pipeline import schema_inference

        return schema_inference.main(config, set_ or [], write, console)


@command(app, _DATA, "config")
def config_(config: ConfigName = "development", set_: Overrides = None) -> None:
    """Check a configuration and print it whole: the base, the variant and the overrides."""
    import yaml

    from pipeline import loading

    settings = loading.load(config, set_ or []).model_dump(mode="json")
    print(yaml.safe_dump(settings, sort_keys=False, width=100), end="")


command(app, _MODELS)(predict)
versions = typer.Typer(
    help="The model's versions in the registry: list, compare, promote, roll back.",
    no_args_is_help=True,
)
app.add_typer(versions, name="versions", rich_help_panel=_MODELS)

NumberOrLabel = Annotated[str, typer.Argument(metavar="N", help="A version: number or label.")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="For the history of the labels.")]


@command(versions, name="list")
def list_(
    config: ConfigName = "development", set_: Overrides = None, json_: AsJson = False
) -> None:
    """List the versions, newest first, with their labels and metrics."""
    from pipeline import versions

    versions.list_(versions.open_model(config, set_), json_)


@command(versions)
def show(
    version: NumberOrLabel,
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Show a version's manifest, how good it is, and who moved its labels."""
    from pipeline import versions

    versions.show(versions.open_model(config, set_), version, json_)


@command(versions)
def diff(
    a: NumberOrLabel,
    b: NumberOrLabel,
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Show what differs between two versions: settings, data, code, metrics."""
    from pipeline import versions

    versions.diff(versions.open_model(config, set_), a, b, json_)


@command(versions)
def promote(
    version: NumberOrLabel,
    why: Why = "by hand",
    force: Annotated[
        bool, typer.Option("--force", help="Even if it breaks the champion's callers.")
    ] = False,
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Make a version the champion."""
    from pipeline import versions

    versions.promote(versions.open_model(config, set_, True), version, why, force, json_)


@command(versions)
def rollback(
    why: Why = "by hand",
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Bring the champion before this one back; again, the one before that."""
    from pipeline import versions

    versions.rollback(versions.open_model(config, set_, True), why, json_)


@command(versions)
def label(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The label.")],
    version: Annotated[
        str | None, typer.Argument(metavar="[N]", help="A version: number or label.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the label away.")] = False,
    why: Why = "by hand",
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Give a version a label of your own, or take it away."""
    from pipeline import versions

    versions.label(versions.open_model(config, set_, True), name, version, remove, why, json_)


@command(versions)
def verify(
    config: ConfigName = "development", set_: Overrides = None, json_: AsJson = False
) -> int:
    """Check that everything in the registry is as it was filed."""
    from pipeline import versions

    return versions.verify(versions.open_model(config, set_), json_)


@command(app, _DAILY)
def report(config: ConfigName = "development", set_: Overrides = None) -> None:
    """Open the pages of all runs and versions, or print their address."""
    from pipeline import loading
    from pipeline.telling import output_to
    from pipeline.workspace import Workspace

    workspace = Workspace(loading.PROJECT / loading.load(config, set_ or []).workspace)
    with output_to() as console:  # TensorFlow's words on starting
        from pipeline.page import writing

        console.print(writing.show(workspace))


@command(app, _DAILY)
def tensorboard(config: ConfigName = "development", set_: Overrides = None) -> int:
    """Show the training curves in TensorBoard, on this machine."""
    from pipeline import loading

    workspace = loading.PROJECT / loading.load(config, set_ or []).workspace
    program = Path(sys.executable).with_name("tensorboard")
    os.execv(program, [str(program), f"--logdir={workspace / 'pipeline_root'}"])


@command(app, _HOUSEKEEPING)
def checkpoints(
    config: ConfigName = "development", set_: Overrides = None, json_: AsJson = False
) -> None:
    """List the trainings that were interrupted and can go on."""
    from pipeline import gc

    gc.list_checkpoints(config, set_ or [], json_)


@command(app, _HOUSEKEEPING)
def gc(
    config: ConfigName = "development",
    set_: Overrides = None,
    keep_runs: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Keep what the last N runs of each pipeline need."),
    ] = 3,
    older_than: Annotated[
        int, typer.Option(metavar="DAYS", min=0, help="Keep younger checkpoints, logs and reports.")
    ] = 7,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> int:
    """Free disk: show what no kept run or version needs, ask, and remove it."""
    from pipeline import gc as gc_

    return gc_.main(config, set_ or [], keep_runs, older_than, yes)


for register in parts.offers("register"):
    register(app)
