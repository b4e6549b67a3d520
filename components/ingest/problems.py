"""What can be wrong with a row of text, in the words of every message about it."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from components.ingest.opening import MARK, original
from components.ingest.settings import IngestSettings

_NUMBERS = {"INT": (pa.int64(), "a whole number"), "FLOAT": (pa.float32(), "a number")}
_PLAIN = {"INT": re.compile(r"-?\d{1,18}"), "FLOAT": re.compile(r"-?\d{1,18}(\.\d{1,18})?")}
_SHOWN = 40
UNFILLED = "is empty, but must be filled"
NOT_UTF8 = "is not UTF-8"
TOO_LARGE = "is too large for 32 bits (FLOAT)"


class Problem(NamedTuple):
    """Something wrong with a row: of one of its columns, or of the whole row."""

    column: str | None
    what: str
    value: str = ""
    """As it is shown."""

    def __str__(self) -> str:
        """What follows the number of the row in a message."""
        text = f"{self.value} {self.what}".strip()
        return f": {text}" if self.column is None else f", column '{self.column}': {text}"

    @property
    def reason(self) -> str:
        """The same for all rows that have it."""
        if self.column is None:
            return "another number of fields than the header"
        return f"column '{self.column}' {self.what}"


class BadRow(NamedTuple):
    """A row that cannot be used."""

    place: str
    """What `number` counts: "line" of a CSV file, or "row" of a Parquet file; both from 1."""
    number: int
    problems: list[Problem]
    raw: str | None
    """The row as it stands in the file; None if it is no text."""

    def __str__(self) -> str:
        """A line for each problem."""
        return "\n".join(f"  {self.place} {self.number}{problem}" for problem in self.problems)


def find_problems(
    fields: list[str], header: list[str], settings: IngestSettings
) -> Iterator[Problem]:
    """Yields what is wrong with a row of CSV.

    Args:
        fields: Its fields; a byte that is no text in the file's encoding stands behind a MARK.
        header: The columns.
        settings: The types, the columns that must be filled, and the encoding.
    """
    if len(fields) != len(header):
        yield Problem(None, f"{len(fields)} fields, the header has {len(header)}")
        return
    filled = set(settings.filled())
    for name, value in zip(header, fields, strict=True):
        kind = settings.columns[name]
        if not value:
            if name in filled:
                yield Problem(name, UNFILLED)
        elif kind == "BYTES":
            if MARK in value:
                yield Problem(name, _undecoded(settings), _shown(value, settings))
        elif not _PLAIN[kind].fullmatch(value):
            yield from _of_number(name, value, name in filled, settings)


def _of_number(
    name: str, value: str, is_filled: bool, settings: IngestSettings
) -> Iterator[Problem]:
    kind = settings.columns[name]
    arrow, meaning = _NUMBERS[kind]
    short = _shown(value, settings)
    try:
        number = pa.scalar(value.strip(" \t")).cast(arrow).as_py()
    except ValueError:
        yield Problem(name, f"is not {meaning} ({kind})", short)
        return
    if math.isinf(number):
        yield Problem(name, TOO_LARGE, short)
    elif is_filled and math.isnan(number):
        yield Problem(name, "counts as empty, but must be filled", short)


def shorten(text: str) -> str:
    """A value, not longer than a line takes."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _shown(value: str, settings: IngestSettings) -> str:
    short = shorten(value)
    return repr(original(short, settings.csv.encoding) if MARK in short else short)


def _undecoded(settings: IngestSettings) -> str:
    return NOT_UTF8 if settings.csv.is_utf8 else f"is not {settings.csv.encoding}"
