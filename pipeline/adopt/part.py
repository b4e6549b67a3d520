"""Your own data: a configuration from a table and its label, by the command adopt."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.adopt.request import ProblemType, Request
from pipeline.command_line import told

_Columns = list[str] | None
PANEL = "Data and settings"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel=PANEL)(adopt)


def adopt(
    data: Annotated[
        str,
        typer.Argument(
            help="A CSV (.gz) or Parquet file, a folder of them, or a pattern; 'package:NAME/...' "
            "is inside a Python package."
        ),
    ],
    label: Annotated[str, typer.Option(metavar="COLUMN", help="What is to be predicted.")],
    name: Annotated[
        str | None, typer.Option(help="Of the configuration; by default after the data.")
    ] = None,
    problem: Annotated[
        ProblemType | None, typer.Option(help="What the label is, if the proposal is wrong.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Whose rows belong together.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Train on earlier rows, test on later.")
    ] = None,
    keep: Annotated[
        _Columns, typer.Option(metavar="COLUMN", help="Use it although it was left out; repeat.")
    ] = None,
    exclude: Annotated[
        _Columns, typer.Option(metavar="COLUMN", help="Leave it out; may be repeated.")
    ] = None,
    separator: Annotated[str, typer.Option(help="Between a CSV's fields: ';' or '\\t'.")] = ",",
    encoding: Annotated[str, typer.Option(help="Of a CSV, e.g. latin-1.")] = "utf-8",
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Set rows without a label aside in each run.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show everything, write nothing.")] = (
        False
    ),
) -> None:
    """Make a configuration from a table and its label: your own data in five minutes."""
    request = Request(
        data=data,
        label=label,
        name=name,
        problem=problem,
        key=key,
        time=time,
        keep=tuple(keep or ()),
        exclude=tuple(exclude or ()),
        separator=separator,
        encoding=encoding,
        quarantine=quarantine,
        dry_run=dry_run,
    )
    raise SystemExit(told(lambda: _adopt(request)))


def _adopt(request: Request) -> int:
    from pipeline.console import output_to

    with output_to(Path(os.devnull)) as console:  # TensorFlow's words on starting
        from pipeline.adopt import run

        return run.adopt(request, console)
