"""A configuration's model in the registry, its versions, and how they are set on a terminal."""

import getpass
import json
import os
import re
import socket
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from components.registry import store
from components.registry.labels import Mover
from pipeline import loading
from pipeline.console import make, shown, table
from pipeline.loading import DEFAULT
from pipeline.workspace import Workspace

Fact = tuple[str, str]

_HASH, _DIGITS = re.compile(r"[0-9a-f]{32,}\+?"), 12


@dataclass(frozen=True)
class Model:
    """Where a model's versions are, and the configuration that a person named it by."""

    config_name: str
    workspace: Workspace
    folder: str
    """`registry/<model>`, absolute."""

    @property
    def shown_folder(self) -> str:
        """The folder as a person types it."""
        return shown(Path(self.folder))

    def version(self, wanted: str) -> "Version":
        """A version by number or label.

        Raises:
            PipelineStop: There is none, or its manifest is damaged.
        """
        from components.inference.model import choose

        number = choose(self.folder, wanted).version
        held = held_by(store.read_labels(self.folder), number)
        return Version(number, held, store.read_manifest(self.folder, number))

    def command(self, arguments: str) -> str:
        """A command of the group, as a person types it."""
        chosen = "" if self.config_name == DEFAULT else f" -c {self.config_name}"
        return f"python3 -m pipeline versions {arguments}{chosen}"

    def none_yet(self) -> str:
        """What to say while there are no versions, and what to type."""
        command = make("run-local", self.config_name)
        return f"No versions in {self.shown_folder} yet. Make one with: {command}"


@dataclass(frozen=True)
class Version:
    """What the registry's files say about a version."""

    number: int
    labels: list[str]
    manifest: dict[str, Any]

    @property
    def title(self) -> str:
        """'version 3 (champion)'."""
        return f"version {self.number}" + (f" ({', '.join(self.labels)})" if self.labels else "")


def open_model(config_name: str, overrides: list[str]) -> Model:
    """The model of a configuration; its folder need not be there.

    Raises:
        PipelineStop: The configuration has mistakes.
    """
    config = loading.load(config_name, overrides)
    workspace = Workspace(loading.PROJECT / config.workspace)
    return Model(config_name, workspace, str(workspace.registry / config.registry.model))


def mover(why: str) -> Mover:
    """The person, as user@host; a user without a name is told by number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return Mover(f"{user}@{socket.gethostname()}", why)


def part(values: Any, *names: str) -> Any:
    """A part of a manifest, by the names that lead to it; {} where it is not there."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return {} if values is None else values


def mapping(values: Any, *names: str) -> Mapping[str, Any]:
    """The same, as a mapping: {} where it is none."""
    found = part(values, *names)
    return found if isinstance(found, Mapping) else {}


def held_by(held: store.Labels, number: int) -> list[str]:
    """The labels of a version."""
    return [label for label, version in held.items() if version == number]


def describe_moves(moves: Mapping[str, store.Step]) -> str:
    """'champion 2 -> 3, candidate 3 -> none'."""
    return ", ".join(
        f"{label} {step['from'] or 'none'} -> {step['to'] or 'none'}"
        for label, step in moves.items()
    )


def day_and_minute(time: str) -> str:
    """A time of the registry, in UTC, for people."""
    return time[:16].replace("T", " ")


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
    for name, text in listed:
        start = f"  {name:<{width}}  "
        room = max(console.width - len(start), 40)
        lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
        console.print(start + ("\n" + " " * len(start)).join(lines))


def print_table(console: Console, title: str, made: Table) -> None:
    """Prints a title and a table, whole however narrow the terminal."""
    console.print(title)
    console.print(made, width=max(needed_width(made), console.width))


def needed_width(made: Table) -> int:
    """So many characters wide is a table of which nothing is left out."""
    return Console(width=10_000, markup=False).measure(made).maximum


def narrow_table(*headings: str) -> Table:
    """A table with less room between its columns, so that more of them fit."""
    made = table(*headings)
    made.padding = (0, 1)
    return made


def number(value: Any) -> str:
    """A metric's value; one that cannot be computed, or is not there, is '-'."""
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def value(setting: Any) -> str:
    """A setting in one line, as in YAML without what is null; of a hash the first digits."""
    if isinstance(setting, dict):
        inner = ", ".join(f"{name}: {value(v)}" for name, v in setting.items() if v is not None)
        return f"{{{inner}}}"
    if isinstance(setting, list):
        return f"[{', '.join(value(inner) for inner in setting)}]"
    if setting is None or isinstance(setting, bool):
        return json.dumps(setting)
    text = str(setting)
    # A '+' is a commit with changes that are not in it.
    return text[:_DIGITS] + "+" * text.endswith("+") if _HASH.fullmatch(text) else text
