"""The commands. Each imports what it needs when it is called, so that `--help` is quick."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import parts
from pipeline.command_line import ConfigName, Overrides
from pipeline.command_line import told as _told
from pipeline.predict import predict
from pipeline.versions.commands import app as versions

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


@app.command(rich_help_panel=_DAILY)
def run(config: ConfigName = "development", set_: Overrides = None) -> None:
    """Run the pipeline on this machine: from data to a judged, versioned model."""
    from pipeline import run as run_

    raise SystemExit(_told(lambda: run_.run(config, set_ or [])))


@app.command(rich_help_panel=_DATA)
def schema(
    config: ConfigName = "development",
    set_: Overrides = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the schema file; without it, only show.")
    ] = False,
) -> None:
    """Infer the schema from the data, and show what differs from the curated one."""
    from pipeline.console import output_to

    def infer() -> int:
        with output_to(Path(os.devnull)) as console:  # TensorFlow's words on starting
            from pipeline import schema_inference

            return schema_inference.main(config, set_ or [], write, console)

    raise SystemExit(_told(infer))


@app.command("config", rich_help_panel=_DATA)
def config_(config: ConfigName = "development", set_: Overrides = None) -> None:
    """Check a configuration and print it whole: the base, the variant and the overrides."""
    from pipeline import loading

    def show() -> int:
        import yaml

        settings = loading.load(config, set_ or []).model_dump(mode="json")
        print(yaml.safe_dump(settings, sort_keys=False, width=100), end="")
        return 0

    raise SystemExit(_told(show))


app.command(rich_help_panel=_MODELS)(predict)
app.add_typer(versions, name="versions", rich_help_panel=_MODELS)


@app.command(rich_help_panel=_DAILY)
def tensorboard(config: ConfigName = "development", set_: Overrides = None) -> None:
    """Show the training curves in TensorBoard, on this machine."""
    from pipeline import loading

    def serve() -> int:
        workspace = loading.PROJECT / loading.load(config, set_ or []).workspace
        program = Path(sys.executable).with_name("tensorboard")
        os.execv(program, [str(program), f"--logdir={workspace / 'pipeline_root'}"])

    raise SystemExit(_told(serve))


@app.command(rich_help_panel=_HOUSEKEEPING)
def checkpoints(
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Everything that is known, for programs.")
    ] = False,
) -> None:
    """List the trainings that were interrupted and can go on."""
    from pipeline import checkpoints as checkpoints_

    raise SystemExit(_told(lambda: checkpoints_.main(config, set_ or [], json_)))


@app.command(rich_help_panel=_HOUSEKEEPING)
def gc(
    config: ConfigName = "development",
    set_: Overrides = None,
    keep_runs: Annotated[
        int, typer.Option(metavar="N", help="Keep what the last N runs of each pipeline need.")
    ] = 3,
    older_than: Annotated[
        int, typer.Option(metavar="DAYS", help="Keep younger checkpoints, logs and reports.")
    ] = 7,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Free disk: show what no kept run or version needs, ask, and remove it."""
    from pipeline import gc as gc_

    raise SystemExit(_told(lambda: gc_.main(config, set_ or [], keep_runs, older_than, yes)))


for register in parts.offers("register"):
    register(app)
