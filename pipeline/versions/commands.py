"""The command group `versions`. Each command imports what it needs when it is called."""

from typing import Annotated

import typer

from pipeline.command_line import ConfigName, Overrides, told

app = typer.Typer(
    help="The model's versions in the registry: list, compare, promote, roll back.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Everything that is known, for programs.")]
NumberOrLabel = Annotated[str, typer.Argument(metavar="N", help="A version: number or label.")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="For the history of the labels.")]


@app.command("list")
def list_(
    config: ConfigName = "development", set_: Overrides = None, json_: AsJson = False
) -> None:
    """List the versions, newest first, with their labels and metrics."""
    from pipeline.versions import listing
    from pipeline.versions.model import open_model

    raise SystemExit(told(lambda: listing.main(open_model(config, set_ or []), json_)))


@app.command()
def show(
    version: NumberOrLabel,
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Show what a version was made of, how good it is, and who moved its labels."""
    from pipeline.versions import showing
    from pipeline.versions.model import open_model

    raise SystemExit(told(lambda: showing.main(open_model(config, set_ or []), version, json_)))


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A version: number or label.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Show what differs between two versions: settings, data, code, metrics."""
    from pipeline.versions import comparing
    from pipeline.versions.model import open_model

    raise SystemExit(told(lambda: comparing.main(open_model(config, set_ or []), a, b, json_)))


@app.command()
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
    from pipeline.versions import moving
    from pipeline.versions.model import open_model

    def move() -> int:
        return moving.promote(open_model(config, set_ or []), version, why, force, json_)

    raise SystemExit(told(move))


@app.command()
def rollback(
    why: Why = "by hand",
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Bring the champion before this one back; again, the one before that."""
    from pipeline.versions import moving
    from pipeline.versions.model import open_model

    raise SystemExit(told(lambda: moving.rollback(open_model(config, set_ or []), why, json_)))


@app.command()
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
    from pipeline.versions import moving
    from pipeline.versions.model import open_model

    def move() -> int:
        model = open_model(config, set_ or [])
        return moving.label(model, name, version, remove, why, json_)

    raise SystemExit(told(move))


@app.command()
def verify(
    config: ConfigName = "development", set_: Overrides = None, json_: AsJson = False
) -> None:
    """Check that everything in the registry is as it was filed."""
    from pipeline.versions import verifying
    from pipeline.versions.model import open_model

    raise SystemExit(told(lambda: verifying.main(open_model(config, set_ or []), json_)))
