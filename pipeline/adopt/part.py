"""The part `adopt`: a table and its label become a configuration."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from pipeline.command_line import command

ProblemType = Literal["binary", "multiclass", "multilabel", "regression"]


@dataclass(frozen=True)
class Request:
    """What a person asks for: the command's arguments and options, which its help describes."""

    data: str
    label: str
    name: str | None = None
    problem: ProblemType | None = None
    key: str | None = None
    time: str | None = None
    keep: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    separator: str = ","
    encoding: str = "utf-8"
    decimal: str = "."
    thousands: str = ""
    units: tuple[str, ...] = ()
    nulls: tuple[str, ...] = ()
    tidy: tuple[str, ...] = ()
    quarantine: bool = False
    dry_run: bool = False


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "Data and settings")(adopt)


def adopt(
    data: Annotated[
        str,
        typer.Argument(
            help="A CSV, JSON lines or Parquet file, a folder of them, or a pattern; "
            "'package:NAME/...' is inside a Python package."
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
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Use it although it was left out; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Leave it out; may be repeated.")
    ] = None,
    separator: Annotated[str, typer.Option(help="Between a CSV's fields: ';' or '\\t'.")] = ",",
    encoding: Annotated[str, typer.Option(help="Of a CSV, e.g. latin-1.")] = "utf-8",
    decimal: Annotated[str, typer.Option(help="Before a number's fraction: '.' or ','.")] = ".",
    thousands: Annotated[str, typer.Option(help="Between a number's thousands: ',' or '.'.")] = "",
    units: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Beside numbers, such as $ or %; may be repeated."),
    ] = None,
    nulls: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Stands for a missing value; may be repeated."),
    ] = None,
    tidy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Capitals, and spaces at the ends, make no difference; may be repeated.",
        ),
    ] = None,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Set rows without a label aside in each run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show everything, write nothing.")
    ] = False,
) -> int:
    """Make a configuration from a table and its label: your own data in five minutes."""
    many = {"keep": keep, "exclude": exclude, "units": units, "nulls": nulls, "tidy": tidy}
    lists = {option: tuple(values or ()) for option, values in many.items()}
    request = Request(
        data, label, name, problem, key, time, separator=separator, encoding=encoding,
        decimal=decimal, thousands=thousands, quarantine=quarantine, dry_run=dry_run, **lists,
    )  # fmt: skip
    return _adopt(request)


def _adopt(request: Request) -> int:
    from pipeline.telling import output_to

    with output_to() as console:  # TensorFlow's words on starting
        from pipeline.adopt import writing

        return writing.adopt(request, console)
