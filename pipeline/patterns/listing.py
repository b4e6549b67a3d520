"""`python -m pipeline patterns`: which of the book's patterns a configuration uses, and why."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.errors import PipelineStop
from pipeline import loading
from pipeline.config import Config
from pipeline.console import table
from pipeline.patterns.catalogue import Catalogue, Pattern, read
from pipeline.patterns.detection import reasons
from pipeline.patterns.page import PAGE, REMOVED, write
from pipeline.patterns.parts import Part, present

State = Literal["used", "off", "command", "removed", "not built"]

_STYLES: dict[State, str] = {"used": "green", "command": "cyan", "removed": "dim"}
_BY_DEFAULT: tuple[State, ...] = ("used", "off", "command")
_WIDTH = 110
"""Of the table where no terminal says how wide it is."""


@dataclass(frozen=True)
class Found:
    """What a configuration makes of a pattern."""

    pattern: Pattern
    state: State
    why: list[str]
    """Of `used`: the settings that say so, or that it is always on."""
    switch: str | None
    """A line of configuration that turns it on, or a command; None if nothing does."""


def main(config_name: str, overrides: list[str], everything: bool, as_json: bool) -> int:
    """Prints the patterns by chapter, or all thirty as JSON."""
    config = loading.load(config_name, overrides)
    catalogue = read()
    found = {p.number: find(p, config, present()) for p in catalogue.patterns()}
    if as_json:
        plain = [_plain(chapter, found[p.number]) for chapter, p in _placed(catalogue)]
        print(json.dumps(plain, indent=1))
        return 0
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(_summary(config.name, list(found.values())) + "\n")
    console.print(_table(catalogue, found, everything), soft_wrap=False)
    _tell_rest(console, list(found.values()), everything)
    return 0


def rewrite() -> int:
    """Writes docs/patterns.md anew.

    Raises:
      PipelineStop: it cannot be written.
    """
    page = PAGE.relative_to(loading.PROJECT)
    try:
        write()
    except OSError as error:
        raise PipelineStop(f"{page} cannot be written: {error.strerror}.") from error
    print(f"Written: {page}")
    return 0


def find(pattern: Pattern, config: Config, parts: Collection[Part]) -> Found:
    """What a configuration makes of a pattern, in a fork with these optional parts."""
    if pattern.home is not None or pattern.switch is None:
        return Found(pattern, "not built", [], None)
    if pattern.part is not None and pattern.part not in parts:
        return Found(pattern, "removed", [], None)
    switch = pattern.switch
    turn_on = one_line(switch.settings) if switch.settings else switch.command
    why = reasons(pattern.number, config)
    if switch.always is not None:
        why = why or [f"always: {switch.always}"]
    if why:
        return Found(pattern, "used", why, turn_on)
    return Found(pattern, "off" if switch.settings else "command", [], turn_on)


def one_line(settings: str) -> str:
    """A piece of a configuration as one line of YAML."""
    value = yaml.safe_load(settings)
    made = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return made.strip().removeprefix("{").removesuffix("}")


def _placed(catalogue: Catalogue) -> list[tuple[str, Pattern]]:
    return [(chapter, p) for chapter, patterns in catalogue.chapters.items() for p in patterns]


def _plain(chapter: str, found: Found) -> dict[str, Any]:
    pattern = found.pattern
    return {
        "number": pattern.number,
        "name": pattern.name,
        "chapter": chapter,
        "built": pattern.built,
        "part": pattern.part,
        "state": found.state,
        "why": found.why,
        "switch": found.switch,
        "missing": pattern.missing,
        "home": pattern.home,
    }


def _summary(name: str, found: list[Found]) -> str:
    used = sum(each.state == "used" for each in found)
    return f"{name} uses {used} of the book's {len(found)} patterns."


def _table(catalogue: Catalogue, found: dict[int, Found], everything: bool) -> Table:
    made = table("", "pattern", "", "why, or how to turn it on")
    made.columns[0].justify = "right"
    for column in made.columns[1:]:
        column.justify = "left"
    made.columns[-1].no_wrap, made.columns[-1].overflow = False, "fold"
    for chapter, patterns in catalogue.chapters.items():
        rows = [found[p.number] for p in patterns]
        shown = [row for row in rows if everything or row.state in _BY_DEFAULT]
        if shown:
            made.add_row()
            made.add_row("", Text(chapter, style="bold"))
        for row in shown:
            state = Text(row.state, style=_STYLES.get(row.state, ""))
            number, name = str(row.pattern.number), _name(row.pattern)
            made.add_row(number, name, state, "\n".join(_said(row, everything)))
    return made


def _name(pattern: Pattern) -> str:
    return f"{pattern.name} (in part)" if pattern.built == "in part" else pattern.name


def _said(row: Found, everything: bool) -> Iterator[str]:
    """Lines of the last column: reasons, or what turns it on, or where it will be."""
    if row.state == "removed":
        yield f"{REMOVED} ({row.pattern.part})"
    elif row.pattern.home is not None:
        yield f"where it will live: {row.pattern.home.replace('`', '')}"
    else:
        yield from row.why or [row.switch or ""]
    if row.pattern.missing is not None and everything:
        yield f"missing: {row.pattern.missing}"


def _tell_rest(console: Console, found: list[Found], everything: bool) -> None:
    console.print()
    for state, title in (("removed", "Removed from this fork"), ("not built", "Not built")):
        names = [row.pattern.name for row in found if row.state == state]
        if names and not everything:
            console.print(f"{title}: {', '.join(names)}.", soft_wrap=False)
    page = PAGE.relative_to(loading.PROJECT)
    console.print(f"What each is for, and what it costs: {page}")
