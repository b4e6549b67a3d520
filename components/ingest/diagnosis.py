"""Which rows of a CSV file are bad: the slow second look, taken only after the fast one failed.

Python's csv module splits the rows as Arrow does, and knows the line that each begins on.
"""

import csv
import io
import math
import re
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from components.ingest.opening import UNREADABLE, Source, is_unclosed
from components.ingest.settings import IngestSettings

_SHOWN = 5
_LOOKED_AT = 1 << 20
_FIELD_LIMIT = 1 << 26
_NUMBERS = {"INT": (pa.int64(), "a whole number"), "FLOAT": (pa.float32(), "a number")}
_PLAIN = {"INT": re.compile(r"-?\d{1,18}"), "FLOAT": re.compile(r"-?\d{1,18}(\.\d{1,18})?")}


def explain(path: str, header: list[str], settings: IngestSettings, good: int, why: str) -> str:
    """Says which rows of a file are bad.

    Args:
        path: The file.
        header: Its columns.
        settings: The types, and the columns that must be filled.
        good: So many rows at the start are known to be good.
        why: What the fast reader complained of, shown if this finds nothing.

    Returns:
        The message, with file, line, column and value of the first bad rows.
    """
    found = list(islice(_bad_rows(path, header, settings, good), _SHOWN))
    if not found:
        return f"{path} can't be parsed: {why}. Correct the file, then run again."
    count = f"the first {_SHOWN} bad rows" if len(found) == _SHOWN else "bad rows"
    lines = "\n".join(f"  line {line}{complaint}" for line, complaint in found)
    return (
        f"{path}: {count}:\n{lines}\nCorrect or remove them in the file, or correct the column's "
        "type in the schema, then run again."
    )


def _bad_rows(
    path: str, header: list[str], settings: IngestSettings, good: int
) -> Iterator[tuple[int, str]]:
    filled, source = set(settings.filled()), Source(path)
    begin = max(1, good)  # The last good row again: it may be the one that swallowed the rest.
    row: list[str] | str = ""
    for line, row in islice(_rows(source), begin, begin + _LOOKED_AT):
        if isinstance(row, str):
            yield line, f" and after: {row}; is a quotation mark not closed, or the file cut off?"
        elif len(row) != len(header):
            yield line, f": {len(row)} fields, the header has {len(header)}"
        else:
            for name, value in zip(header, row, strict=True):
                problem = _problem(value, settings.columns[name], name in filled)
                if problem:
                    yield line, f", column '{name}': {problem}"
    if isinstance(row, list) and is_unclosed(row[-1], source):
        yield line, f", column '{header[-1]}': the quotation mark is not closed"


def _rows(source: Source) -> Iterator[tuple[int, list[str] | str]]:
    """The line each record begins on, and its fields, or why there is no reading on.

    The header is among them, blank lines are not.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    text = io.TextIOWrapper(
        io.BufferedReader(source), encoding="utf-8-sig", errors="surrogateescape", newline=""
    )
    rows = csv.reader(text)
    begin = 1
    try:
        for row in rows:
            if row:
                yield begin, row
            begin = rows.line_num + 1
    except (csv.Error, *UNREADABLE) as error:
        yield begin, str(error)


def _problem(value: str, kind: str, filled: bool) -> str | None:
    if not value:
        return "is empty, but must be filled" if filled else None
    if kind == "BYTES":
        return None if _is_utf8(value) else f"{_shown(value)} is not UTF-8"
    return None if _PLAIN[kind].fullmatch(value) else _number_problem(value, kind, filled)


def _number_problem(value: str, kind: str, filled: bool) -> str | None:
    arrow, meaning = _NUMBERS[kind]
    try:
        number = pa.scalar(value.strip(" \t")).cast(arrow).as_py()
    except ValueError:
        return f"{_shown(value)} is not {meaning} ({kind})"
    if math.isinf(number):
        return f"{_shown(value)} is too large for 32 bits ({kind})"
    if filled and math.isnan(number):
        return f"{_shown(value)} counts as empty, but must be filled"
    return None


def _is_utf8(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _shown(value: str) -> str:
    short = value if len(value) <= 40 else value[:40] + "…"
    return repr(short) if _is_utf8(value) else repr(short.encode("utf-8", "surrogateescape"))
