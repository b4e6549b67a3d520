"""What a person asks `adopt` for."""

from dataclasses import dataclass
from typing import Literal

ProblemType = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class Request:
    """The command's arguments and options."""

    data: str
    """A file, a folder or a glob."""
    label: str
    name: str | None = None
    problem: ProblemType | None = None
    key: str | None = None
    time: str | None = None
    keep: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    separator: str = ","
    encoding: str = "utf-8"
    quarantine: bool = False
    """Set rows without a label aside, instead of refusing them."""
    dry_run: bool = False
