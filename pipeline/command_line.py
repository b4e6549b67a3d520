"""What all commands share: which settings they work on, and how they end."""

import errno
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from components.errors import PipelineStop

ConfigName = Annotated[
    str, typer.Option("--config", "-c", help="A file of configs/, without its ending.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; may be repeated."),
]


def told(work: Callable[[], int]) -> int:
    """Runs a command and returns its exit code; an error meant for the person has no traceback."""
    try:
        return work()
    except PipelineStop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" of {error.filename}" if error.filename else ""
        print(
            f"\nThe disk{where} is full. Free some (make gc), type the same again.", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
