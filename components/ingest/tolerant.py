"""CSV files row by row as far as they go: bad rows are handed out, the others go on.

All fields are read as text, so that a bad one stops nothing, and are then cast a column at a time.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from components.errors import PipelineStop
from components.ingest.arrow_types import ARROW, blanked, parse
from components.ingest.checking import Column, check
from components.ingest.diagnosis import records, unclosed
from components.ingest.opening import MARK, Source, is_unclosed
from components.ingest.problems import BadRow, Problem, find_problems
from components.ingest.settings import IngestSettings

SetAside = Callable[[BadRow], None]
_BLOCKS = (1 << 20, 1 << 26)
"""Bytes read at a time; the second for files with a row longer than the first."""


class _Ragged(NamedTuple):
    """A row with more or fewer fields than the header."""

    number: int
    fields: int
    text: str


class _Block(NamedTuple):
    """Rows that follow each other; numbers count from 1, after the header."""

    rows: pa.RecordBatch
    """Strings, null where empty."""
    numbers: npt.NDArray[np.int64]
    ragged: list[_Ragged]


def read_tolerantly(
    path: str, header: list[str], settings: IngestSettings, done: int, set_aside: SetAside
) -> Iterator[pa.RecordBatch]:
    """Yields the good rows of a file in order, as `reading.read` does.

    Args:
        path: The file.
        header: Its columns.
        settings: The types and which columns must be filled.
        done: So many rows at the start are known to be good, and left out.
        set_aside: Is given each bad row, in order.

    Raises:
        PipelineStop: If the file ends inside quotation marks.
        OSError, UnicodeError: If it can't be read to its end.
    """
    lines, filled = _Lines(path, settings), set(settings.filled())
    for block in _growing(path, header, settings, done):
        bad = [_of_ragged(ragged, header) for ragged in block.ragged]
        if len(block.rows):
            typed = {name: _typed(block.rows[name], settings, name) for name in settings.names()}
            good, found = check(typed, filled)
            bad += [
                _of_fields(int(block.numbers[i]), _fields(block.rows, int(i)), header, settings)
                for i in found
            ]
            if len(good):
                yield good
        for row in sorted(bad, key=lambda row: row.number):
            set_aside(row._replace(number=lines.of(row.number)))


def _typed(fields: pa.Array, settings: IngestSettings, name: str) -> Column:
    kind = settings.columns[name]
    if kind != "BYTES":
        return Column(fields, parse(pc.ascii_trim(fields, " \t"), ARROW[kind]))
    return Column(fields, blanked(fields, pc.match_substring(fields, MARK)))


def _fields(rows: pa.RecordBatch, index: int) -> list[str]:
    return [column[index].as_py() or "" for column in rows.columns]


def _of_fields(
    number: int, fields: list[str], header: list[str], settings: IngestSettings
) -> BadRow:
    line = io.StringIO()
    csv.writer(line, delimiter=settings.csv.separator, lineterminator="").writerow(fields)
    problems = [*find_problems(fields, header, settings)]
    return BadRow("line", number, problems, _shown(line.getvalue()))


def _of_ragged(row: _Ragged, header: list[str]) -> BadRow:
    problem = Problem(None, f"{row.fields} fields, the header has {len(header)}")
    return BadRow("line", row.number, [problem], _shown(row.text))


def _shown(raw: str) -> str:
    return re.sub(f"{MARK}(.)", lambda byte: f"\\x{ord(byte[1]):02x}", raw, flags=re.DOTALL)


class _Lines:
    """On which line a row begins; reads the file a second time, as far as that goes."""

    def __init__(self, path: str, settings: IngestSettings) -> None:
        self._path, self._settings = path, settings
        self._records: Iterator[tuple[int, list[str] | str]] | None = None
        self._next = 0

    def of(self, number: int) -> int:
        """The line of row `number`, which must not be before the last one asked for."""
        if self._records is None:
            source = Source(self._path, self._settings.csv, marks=True)
            self._records = records(source, self._settings)
        ahead = number - self._next
        self._next = number + 1
        line, _ = next(islice(self._records, ahead, None))
        return line


def _growing(path: str, header: list[str], settings: IngestSettings, done: int) -> Iterator[_Block]:
    """Begins anew with a larger block, after the rows already read, if a row exceeds the block."""
    for size in _BLOCKS:
        try:
            for block in _blocks(path, header, settings, size):
                rest = _after(done, block)
                if len(rest.rows) or rest.ragged:
                    yield rest
                    ends = [*rest.numbers[-1:].tolist(), *(r.number for r in rest.ragged[-1:])]
                    done = max(ends)
            return
        except pa.ArrowInvalid as error:
            if "straddl" not in str(error):
                raise
    raise PipelineStop(unclosed(path, header, settings))


def _after(done: int, block: _Block) -> _Block:
    first = int(np.searchsorted(block.numbers, done, side="right"))
    ragged = [row for row in block.ragged if row.number > done]
    return _Block(block.rows.slice(first), block.numbers[first:], ragged)


def _blocks(path: str, header: list[str], settings: IngestSettings, size: int) -> Iterator[_Block]:
    source = Source(path, settings.csv, marks=True)
    ragged: list[_Ragged] = []
    last, value = 0, ""
    for rows in _open(source, header, settings, size, ragged):
        if len(rows):
            numbers = row_numbers(last, len(rows), [row.number for row in ragged])
            last, value = int(numbers[-1]), rows[header[-1]][-1].as_py() or ""
            own = [row for row in ragged if row.number < last]
            del ragged[: len(own)]
            yield _Block(rows, numbers, own)
    # Behind the last row there can be only ragged ones, and the last of them may not be closed.
    is_open = ragged[-1].text.count('"') % 2 if ragged else is_unclosed(value, source)
    if is_open:
        raise PipelineStop(unclosed(path, header, settings))
    if ragged:
        nothing = pa.RecordBatch.from_pydict({name: pa.nulls(0, pa.string()) for name in header})
        yield _Block(nothing, np.array([], np.int64), ragged)


def _open(
    source: Source, header: list[str], settings: IngestSettings, size: int, ragged: list[_Ragged]
) -> Iterator[pa.RecordBatch]:
    def skip(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append(_Ragged(row.number - 1, row.actual_columns, row.text))  # The header is row 1.
        return "skip"

    try:
        yield from pyarrow.csv.open_csv(
            source,
            # One thread: only then do rows that are set aside have numbers.
            pyarrow.csv.ReadOptions(block_size=size, use_threads=False),
            pyarrow.csv.ParseOptions(
                delimiter=settings.csv.separator, newlines_in_values=True, invalid_row_handler=skip
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" not in str(error):  # Arrow's name for a header without rows.
            raise


def row_numbers(last: int, count: int, skipped: list[int]) -> npt.NDArray[np.int64]:
    """The numbers of the next good rows after row `last`, int64 [count].

    Args:
        last: The row before.
        count: How many.
        skipped: The numbers of rows that are none of them.
    """
    between = [number for number in skipped if number > last]
    numbers = np.arange(last + 1, last + 1 + count + len(between))
    return np.setdiff1d(numbers, between, assume_unique=True)[:count]
