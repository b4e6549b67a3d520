"""The graph and the commands of continued evaluation, and its replays."""

from typing import Annotated

import typer

from pipeline.command_line import ConfigName, Overrides, told

PANEL = "Continued evaluation"

Last = Annotated[int, typer.Option(metavar="N", min=5, max=16, help="Stop after this span.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=PANEL)(continued_evaluation)
    app.command(rich_help_panel=PANEL)(evaluations)
    app.command(rich_help_panel=PANEL)(replay)
    app.command(rich_help_panel=PANEL)(replay_faults)


def continued_evaluation(
    config: ConfigName = "automated",
    set_: Overrides = None,
    span: Annotated[
        int | None, typer.Option(metavar="N", help="Which span; the newest if not given.")
    ] = None,
) -> None:
    """Judge the champion on a fresh span, decide, and retrain if it is due."""
    from pipeline.continued_evaluation import run

    raise SystemExit(told(lambda: run.main(config, set_ or [], span)))


def evaluations(
    config: ConfigName = "automated",
    set_: Overrides = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Everything that is known, for programs.")
    ] = False,
) -> None:
    """List all evaluations of a model, and draw them on a page."""
    from pipeline.continued_evaluation import listing

    raise SystemExit(told(lambda: listing.main(config, set_ or [], json_)))


def replay(
    set_: Overrides = None,
    last: Last = 16,
) -> None:
    """Live through four years of taxi trips a quarter at a time, in minutes."""
    from pipeline.continued_evaluation import replay

    raise SystemExit(told(lambda: replay.main(set_ or [], last)))


def replay_faults(
    set_: Overrides = None,
    span: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="A span that gets faults; may be repeated."),
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One of the faults; may be repeated.")
    ] = None,
    last: Last = 16,
    write: Annotated[
        bool, typer.Option("--write", help="Write the table into docs/faults.md too.")
    ] = False,
) -> None:
    """Put known faults into fresh spans, and show which check finds them."""
    from pipeline.continued_evaluation import fault_replay

    raise SystemExit(told(lambda: fault_replay.main(set_ or [], span, fault, last, write)))
