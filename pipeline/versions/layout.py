"""How facts about versions are set on a terminal: sections of aligned names and values."""

import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.console import table

Fact = tuple[str, str]

NOT_RECORDED = "not recorded"
_INDENT = "  "


def new_console() -> Console:
    """One that cuts nothing off: what is too long for the terminal goes on in the next line."""
    return Console(highlight=False, soft_wrap=True, markup=False)


def print_section(console: Console, title: str, facts: Iterable[Fact]) -> None:
    """Prints a title and its facts, the values under each other; nothing if there are none."""
    listed = list(facts)
    if not listed:
        return
    width = max(len(name) for name, _ in listed)
    console.print(f"\n{title}")
    for name, value in listed:
        start = f"{_INDENT}{name:<{width}}  "
        lines = textwrap.wrap(
            value or "none",
            max(console.width - len(start), 40),
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(start + ("\n" + " " * len(start)).join(lines))


def print_table(title: str, made: Table) -> None:
    """Prints a title and a table, whole however narrow the terminal."""
    console = new_console()
    console.width = max(needed_width(made), console.width)
    console.print(title)
    console.print(made)


def needed_width(made: Table) -> int:
    """So many characters wide is a table of which nothing is left out."""
    return Console(width=10_000, markup=False).measure(made).maximum


def narrow_table(*headings: str) -> Table:
    """A table with less room between its columns, so that more of them fit."""
    made = table(*headings)
    made.padding = (0, 1)
    return made


def number(value: float | None) -> str:
    """A metric's value; null is one that cannot be computed."""
    return "-" if value is None else f"{value:.4f}"


def value(setting: Any) -> str:
    """A setting in one line, as in YAML."""
    if isinstance(setting, dict):
        return f"{{{values(setting)}}}"
    if isinstance(setting, list):
        return f"[{', '.join(value(inner) for inner in setting)}]"
    if setting is None or isinstance(setting, bool):
        return json.dumps(setting)
    return str(setting)


def values(settings: Mapping[str, Any]) -> str:
    """Settings in one line, without those that are null."""
    known = {name: inner for name, inner in settings.items() if inner is not None}
    return ", ".join(f"{name}: {value(inner)}" for name, inner in known.items())
