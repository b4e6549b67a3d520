"""Rows as they come from callers, checked, as the columns a version takes.

A column is a numpy array [rows] of the signature's type: float32, int64, or object (UTF-8 bytes).
A missing value is NaN, the lowest int64, or b"": what the SavedModel's signatures `raw` and
`keyed` take for missing, and fill by the feature's policy (`missing:`).

The rules, the same for JSON, tensors and files: a number may be written as an integer or a float;
an integer may be a float without a fraction; text is text; null is missing. Columns that the model
does not read are ignored, so that callers can send a column before the model that reads it is
there, and after a rollback; only what looks like a slip of the pen is refused.
"""

import difflib
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from components.registry.signature import Signature

Columns = dict[str, np.ndarray]

MISSING: dict[str, Any] = {"FLOAT": np.float32("nan"), "INT": np.iinfo(np.int64).min, "BYTES": b""}
DTYPES: dict[str, Any] = {"FLOAT": np.float32, "INT": np.int64, "BYTES": np.object_}
EXPECTED = {"FLOAT": "a number", "INT": "an integer", "BYTES": "a text"}
_MOST_FLOAT = float(np.finfo(np.float32).max)
_MOST_INT = int(np.iinfo(np.int64).max)
_DIGITS = re.compile(r"\d")
_TOLD = 10
"""So many mistakes are told at once; a request with a thousand has one cause."""


class InvalidRows(ValueError):
    """Rows that cannot be predicted; the message names row, column and what is expected."""

    def __init__(self, problems: Sequence[str]):
        """Takes a sentence for each mistake."""
        more = len(problems) - _TOLD
        told = [*problems[:_TOLD], *([f"and {more} more"] if more > 0 else [])]
        super().__init__("; ".join(told))


def from_rows(signature: Signature, rows: Sequence[Any]) -> Columns:
    """Checks rows {column: value} and turns them around.

    Args:
        signature: Of the version.
        rows: As parsed from JSON: numbers, text, None.

    Returns:
        Every input column, [len(rows)].

    Raises:
        InvalidRows: With every mistake in every row (of many, the first ones).
    """
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidRows([f"row {number} must be an object of columns, got {_shown(row)}"])
    given = {name: [row.get(name) for row in rows] for name in signature["inputs"]}
    return _checked(signature, given, [row.keys() for row in rows])


def from_values(signature: Signature, given: Mapping[str, Sequence[Any]], count: int) -> Columns:
    """The same for rows that come as columns {column: values [count]}; None is missing.

    Raises:
        InvalidRows: As `from_rows`.
    """
    absent = [None] * count
    values = {name: given.get(name, absent) for name in signature["inputs"]}
    return _checked(signature, values, [given.keys()] if count else [])


def _checked(
    signature: Signature, given: Mapping[str, Sequence[Any]], named: Sequence[Any]
) -> Columns:
    problems: list[str] = []
    columns = {
        name: _column(name, column, given[name], problems)
        for name, column in signature["inputs"].items()
    }
    problems += unknown_problems(signature, named)
    if problems:
        raise InvalidRows(problems)
    return columns


def unknown_problems(signature: Signature, named: Sequence[Any]) -> list[str]:
    """What is wrong with the columns' names: none that is known, or one misspelt.

    Args:
        signature: Of the version.
        named: The names in each row, as sets.
    """
    inputs = signature["inputs"].keys()
    allowed = inputs | set(signature["ignored"])
    problems = []
    for number, names in enumerate(named):
        if not names & inputs:
            known = ", ".join(inputs)
            problems.append(f"row {number} has no column that the model reads ({known})")
        for name in names - allowed:
            if meant := _slip(name, tuple(inputs - names)):
                problems.append(f"row {number}: no column '{name}'; did you mean '{meant}'?")
    return problems


@functools.lru_cache(maxsize=1024)
def _slip(name: str, absent: tuple[str, ...]) -> str | None:
    """The column, absent from the row, that a name nearly is: a letter or two apart, no digit."""
    for column in absent:
        match = difflib.SequenceMatcher(None, name, column, autojunk=False)
        same = sum(block.size for block in match.get_matching_blocks())
        close = len(name) + len(column) - 2 * same <= 2 and match.ratio() >= 0.75
        if close and _DIGITS.findall(name) == _DIGITS.findall(column):
            return column
    return None


def _column(
    name: str, column: Mapping[str, Any], values: Sequence[Any], problems: list[str]
) -> np.ndarray:
    kind, required = column["type"], column["required"]
    convert, missing = _CONVERT[kind], MISSING[kind]
    converted = np.empty(len(values), DTYPES[kind])
    for number, value in enumerate(values):
        if value is None or (kind == "BYTES" and value in ("", b"")):
            converted[number] = missing
            if required:
                problems.append(f"row {number}: '{name}' is required ({EXPECTED[kind]})")
            continue
        found = convert(value)
        if found is None:
            problems.append(f"row {number}: '{name}' must be {EXPECTED[kind]}, got {_shown(value)}")
            found = missing
        converted[number] = found
    return converted


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if math.isnan(number) or abs(number) > _MOST_FLOAT:
        return None
    return number


def _int(value: Any) -> int | None:
    if isinstance(value, float | np.floating):
        value = int(value) if float(value).is_integer() else None
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return None
    return int(value) if -_MOST_INT <= value <= _MOST_INT else None


def as_utf8(value: Any) -> bytes | None:
    """A text as UTF-8, or None if it is none or half of a surrogate pair, which JSON can spell."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            return None
    return value if isinstance(value, bytes) else None


_CONVERT: dict[str, Callable[[Any], Any]] = {"FLOAT": _float, "INT": _int, "BYTES": as_utf8}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
