"""Which rows of a CSV file are bad: the slow second look, taken only after the fast one failed.

Python's csv module splits the rows as Arrow does, and knows the line that each begins on.
"""

import csv
import io
from collections import deque
from collections.abc import Iterator
from itertools import islice

from components.errors import PipelineStop
from components.ingest.opening import UNREADABLE, Source, is_unclosed, undecodable
from components.ingest.problems import BadRow, Problem, find_problems
from components.ingest.settings import IngestSettings

SHOWN = 5
_LOOKED_AT = 1 << 20
_FIELD_LIMIT = 1 << 26


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
    try:
        found = list(islice(_complaints(path, header, settings, good), SHOWN))
    except UnicodeError:
        return undecodable(path, settings.csv)
    if not found:
        return f"{path} can't be parsed: {why}. Correct the file, then run again."
    return tell(path, found)


def tell(path: str, found: list[str]) -> str:
    """The message about bad rows.

    Args:
        path: The file.
        found: At most SHOWN lines, one a problem.
    """
    count = f"the first {SHOWN} bad rows" if len(found) == SHOWN else "bad rows"
    lines = "\n".join(found)
    encoding = (
        " If the file is in another encoding, set data.csv.encoding, e.g. to latin-1."
        if any(" is not UTF-8" in line for line in found)
        else ""
    )
    return (
        f"{path}: {count}:\n{lines}\nCorrect or remove them in the file, or correct the column's "
        f"type in the schema, then run again.{encoding}"
    )


class FirstBadRows:
    """Takes the bad rows of a file, and stops at the first few; for a reader that goes on."""

    def __init__(self, path: str) -> None:
        """Takes the file's path, for the message."""
        self._path = path
        self._found: list[str] = []

    def __call__(self, row: BadRow) -> None:
        """Notes a row.

        Raises:
            PipelineStop: If enough are found.
        """
        self._found += str(row).splitlines()
        if len(self._found) >= SHOWN:
            self.check()

    def check(self) -> None:
        """Stops.

        Raises:
            PipelineStop: If there was a row.
        """
        if self._found:
            raise PipelineStop(tell(self._path, self._found[:SHOWN]))


def unclosed(path: str, header: list[str], settings: IngestSettings) -> str:
    """The message about a file that ends inside quotation marks."""
    (last,) = deque(records(Source(path, settings.csv, marks=True), settings), maxlen=1)
    line, fields = last
    not_closed = f", column '{header[-1]}': the quotation mark is not closed"
    what = _broken(fields) if isinstance(fields, str) else not_closed
    return f"{path}:\n  line {line}{what}\nCorrect the file, then run again."


def _complaints(path: str, header: list[str], settings: IngestSettings, good: int) -> Iterator[str]:
    source = Source(path, settings.csv, marks=True)
    begin = max(1, good)  # The last good row again: it may be the one that swallowed the rest.
    fields: list[str] | str = ""
    for line, fields in islice(records(source, settings), begin, begin + _LOOKED_AT):
        if isinstance(fields, str):
            yield f"  line {line}{_broken(fields)}"
        else:
            for problem in find_problems(fields, header, settings):
                yield str(BadRow("line", line, [problem], None))
    if isinstance(fields, list) and is_unclosed(fields[-1], source):
        open_mark = Problem(header[-1], "the quotation mark is not closed")
        yield str(BadRow("line", line, [open_mark], None))


def _broken(why: str) -> str:
    return f" and after: {why}; is a quotation mark not closed, or the file cut off?"


def records(source: Source, settings: IngestSettings) -> Iterator[tuple[int, list[str] | str]]:
    """The line each record begins on, and its fields, or why there is no reading on.

    The header is among them, blank lines are not.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    text = io.TextIOWrapper(io.BufferedReader(source), encoding="utf-8-sig", newline="")
    rows = csv.reader(text, delimiter=settings.csv.separator)
    begin = 1
    try:
        for row in rows:
            if row:
                yield begin, row
            begin = rows.line_num + 1
    except (csv.Error, *UNREADABLE) as error:
        yield begin, str(error)
