"""What is known of the book's thirty patterns: `catalogue.yaml`, typed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from components.settings import Strict
from pipeline.patterns.parts import Part

FILE = Path(__file__).with_name("catalogue.yaml")

Built = Literal["yes", "in part", "no"]


class Kind(Strict):
    """A kind of data."""

    title: str
    note: str = Field(description="How far this project can read it.")


class Proof(Strict):
    """Where something can be read, and what fails without it. All paths are from the project."""

    tests: list[str] = Field(default_factory=list, description="pytest's node ids, files, folders.")
    files: list[str] = Field(default_factory=list, description="Where to begin to read.")
    docs: list[str] = Field(default_factory=list, description="Pages of docs/, with an anchor.")


class Switch(Strict):
    """What turns a pattern on, or shapes one that is always on."""

    always: str | None = Field(None, description="Nothing turns it off; the rest of a sentence.")
    command: str | None = Field(None, description="As a person types it.")
    settings: str | None = Field(None, description="A piece of a configuration, as YAML.")


class InPart(Proof):
    """What an optional part adds to a pattern that is there without it."""

    part: Part
    adds: str
    command: str | None = None
    settings: str | None = None


class Pattern(Proof):
    """One pattern. It is built, built in part (`missing`), or not (`home`)."""

    number: int
    name: str
    ask: str = Field(description="The question in a design review; yes means: consider it.")
    problem: str
    solution: str = ""
    trade_off: str = ""
    switch: Switch | None = None
    part: Part | None = Field(None, description="The optional part that it goes with.")
    in_parts: list[InPart] = Field(default_factory=list)
    missing: str | None = Field(None, description="What of the book's pattern is not here.")
    home: str | None = Field(None, description="Not built: where it will live.")
    data: list[str] = Field(min_length=1, description="Kinds of data, or `any`.")
    situations: list[str] = Field(min_length=1)

    @property
    def built(self) -> Built:
        """How much of it there is."""
        if self.home is not None:
            return "no"
        return "yes" if self.missing is None else "in part"

    @property
    def title(self) -> str:
        """Its heading."""
        return f"{self.number}. {self.name}"

    @property
    def snippets(self) -> list[tuple[Part | None, str]]:
        """The pieces of configuration that turn it on, each with the part that it needs."""
        own = self.switch.settings if self.switch else None
        added = [(more.part, more.settings) for more in self.in_parts]
        return [(part, text) for part, text in ((self.part, own), *added) if text is not None]

    @model_validator(mode="after")
    def _whole_or_absent(self) -> "Pattern":
        said = (self.solution, self.trade_off, self.switch, self.tests, self.files)
        if self.home is None and not all(said):
            raise ValueError(f"{self.title} lacks a solution, trade-off, switch, test or file")
        if self.home is not None and any((*said, self.part, self.in_parts, self.missing)):
            raise ValueError(f"{self.title} is not built: it has a home and nothing else")
        return self


class Catalogue(Strict):
    """All patterns by the book's chapters, and what they are looked up by."""

    kinds: dict[str, Kind]
    situations: dict[str, str] = Field(description="Titles by key.")
    chapters: dict[str, list[Pattern]]

    def patterns(self) -> Iterator[Pattern]:
        """Yields them in the book's order."""
        for patterns in self.chapters.values():
            yield from patterns

    @model_validator(mode="after")
    def _known(self) -> "Catalogue":
        for pattern in self.patterns():
            unknown = {*pattern.data} - {"any", *self.kinds} | {*pattern.situations} - {
                *self.situations
            }
            if unknown:
                raise ValueError(f"{pattern.title}: neither a kind nor a situation: {unknown}")
        return self


def read(path: Path = FILE) -> Catalogue:
    """Reads the catalogue.

    Raises:
      pydantic.ValidationError: a pattern is described wrongly.
    """
    return Catalogue.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
