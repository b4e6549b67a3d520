"""The part `adopt`: a table and its label become a configuration."""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import typer

from pipeline.command_line import command

ProblemType = Literal["binary", "multiclass", "multilabel", "regression"]
_option = typer.Option
_column = functools.partial(typer.Option, metavar="COLUMN")
_text = functools.partial(typer.Option, metavar="TEXT")


class Request(NamedTuple):
    """Make a configuration from a table and its label: your own data in five minutes."""

    data: Annotated[
        str,
        typer.Argument(
            help="A CSV, JSON lines or Parquet file, a folder of them, or a pattern; "
            "'package:NAME/...' is inside a Python package."
        ),
    ]
    label: Annotated[str, _column(help="What is to be predicted.")]
    name: Annotated[
        str | None, _option(help="Of the configuration; by default after the data.")
    ] = None
    problem: Annotated[
        ProblemType | None, _option(help="What the label is, if the proposal is wrong.")
    ] = None
    key: Annotated[str | None, _column(help="Whose rows belong together.")] = None
    time: Annotated[str | None, _column(help="Train on earlier rows, test on later.")] = None
    keep: Annotated[
        Sequence[str], _column(help="Use it although it was left out; may be repeated.")
    ] = ()
    exclude: Annotated[Sequence[str], _column(help="Leave it out; may be repeated.")] = ()
    separator: Annotated[str, _option(help="Between a CSV's fields: ';' or '\\t'.")] = ","
    encoding: Annotated[str, _option(help="Of a CSV, e.g. latin-1.")] = "utf-8"
    decimal: Annotated[str, _option(help="Before a number's fraction: '.' or ','.")] = "."
    thousands: Annotated[str, _option(help="Between a number's thousands: ',' or '.'.")] = ""
    units: Annotated[
        Sequence[str], _text(help="Beside numbers, such as $ or %; may be repeated.")
    ] = ()
    nulls: Annotated[Sequence[str], _text(help="Stands for a missing value; may be repeated.")] = ()
    tidy: Annotated[
        Sequence[str],
        _column(help="Capitals, and spaces at the ends, make no difference; may be repeated."),
    ] = ()
    quarantine: Annotated[
        bool, _option("--quarantine", help="Set rows without a label aside in each run.")
    ] = False
    dry_run: Annotated[bool, _option("--dry-run", help="Show everything, write nothing.")] = False


def register(app: typer.Typer) -> None:
    """Adds the command; its arguments and options are a request's."""
    command(app, "Data and settings", "adopt")(_adopt)


@functools.wraps(Request)
def _adopt(**options: Any) -> int:
    from pipeline.telling import output_to

    with output_to() as console:  # TensorFlow's words on starting
        from pipeline.adopt import writing

        return writing.adopt(Request(**options), console)
