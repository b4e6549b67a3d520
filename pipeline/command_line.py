"""What all commands share: which settings they work on, and how they end.

Exit codes: 0 done; 1 failed; 2 something that was typed, configured or is there is wrong, and a
message says what; 130 Ctrl-C. `pipeline.run` has more of them.
"""

import errno
import functools
import sys
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer

from components.errors import PipelineStop

DEFAULT = "development"

ConfigName = Annotated[
    str, typer.Option("--config", "-c", help="A file of configs/, without its ending.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Everything that is known, for programs.")]
P = ParamSpec("P")
Work = Callable[P, int | None]


def command(
    app: typer.Typer, panel: str | None = None, name: str | None = None
) -> Callable[[Work[P]], Work[P]]:
    """A decorator: the function becomes a command, which ends with the code that it returns.

    Args:
      app: where the command is added.
      panel: its group in `--help`.
      name: if it is not the function's.
    """

    def add(work: Work[P]) -> Work[P]:
        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            raise SystemExit(ended(lambda: work(*args, **kwargs)))

        app.command(name, rich_help_panel=panel)(run)
        return work

    return add


def ended(work: Callable[[], int | None]) -> int:
    """Does the work and returns its exit code; an error meant for the person has no traceback."""
    try:
        return work() or 0
    except PipelineStop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" of {error.filename}" if error.filename else ""
            text = f"The disk{where} is full. Free some (make gc), type the same again."
        elif error.filename:
            text = f"{error.filename} cannot be used: {error.strerror}."
        else:
            raise
        print(f"\n{text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
