"""Blocks of rows from the input files, in bounded memory, each row with its number in the file."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from components.batch_prediction.inputs import (
    BLOCK_ROWS,
    UNREADABLE,
    Item,
    open_parquet,
    unreadable,
)
from components.errors import PipelineStop
from components.ingest.opening import Source, as_in_file, is_unclosed, original

_BYTES = 1 << 23
"""Of CSV, read at a time. A row must fit into it."""
_BATCH_ROWS = 1 << 14


class Malformed(NamedTuple):
    """A row of CSV that has more or fewer fields than the header."""

    number: int
    text: str
    reason: str


class Block(NamedTuple):
    """Rows that follow each other."""

    first: int
    """The number of its first row, malformed or not, in the file; from 1."""
    rows: pa.Table
    numbers: np.ndarray
    """int64 [rows]: each row's number in the file."""
    malformed: list[Malformed]


_Numbered = tuple[pa.RecordBatch, np.ndarray]


def read(item: Item) -> Iterator[Block]:
    """Yields the rows of an item, in blocks that depend on nothing but the file.

    Columns of CSV are binary, as they stand in the file, null where empty.

    Raises:
        PipelineStop: If the file can't be read to its end.
    """
    malformed: list[Malformed] = []
    try:
        batches = _csv(item, malformed) if item.rows is None else _parquet(item)
        yield from _blocks(batches, item, malformed)
    except UNREADABLE as error:
        raise PipelineStop(unreadable(item.path, error)) from error


def block_starts(item: Item) -> Iterator[int]:
    """The first rows of an item's blocks, where the number of its rows is known."""
    for start in range(0, item.rows or 0, BLOCK_ROWS):
        yield item.before + start + 1


def _blocks(
    batches: Iterator[_Numbered], item: Item, malformed: list[Malformed]
) -> Iterator[Block]:
    parts: list[_Numbered] = []
    end = item.before + BLOCK_ROWS
    for batch, numbers in batches:
        begin = 0
        while numbers[-1] > end:
            cut = int(np.searchsorted(numbers, end, side="right"))
            parts.append((batch[begin:cut], numbers[begin:cut]))
            yield _block(parts, end, item, malformed)
            parts, begin, end = [], cut, end + BLOCK_ROWS
        parts.append((batch[begin:], numbers[begin:]))
    while parts or malformed:
        yield _block(parts, end, item, malformed)
        parts, end = [], end + BLOCK_ROWS


def _block(parts: list[_Numbered], end: int, item: Item, malformed: list[Malformed]) -> Block:
    """The block up to row `end`; takes its rows out of the malformed ones."""
    own = [row for row in malformed if row.number <= end]
    del malformed[: len(own)]
    if not parts:
        nothing = pa.schema([(name, pa.binary()) for name in item.names]).empty_table()
        return Block(end - BLOCK_ROWS + 1, nothing, np.array([], np.int64), own)
    rows = pa.Table.from_batches([batch for batch, _ in parts])
    numbers = np.concatenate([numbers for _, numbers in parts])
    return Block(end - BLOCK_ROWS + 1, rows, numbers, own)


def _parquet(item: Item) -> Iterator[_Numbered]:
    done = item.before
    with open_parquet(item.path) as file:
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS, item.groups, item.names):
            yield batch, np.arange(done + 1, done + 1 + len(batch))
            done += len(batch)


def _csv(item: Item, malformed: list[Malformed]) -> Iterator[_Numbered]:
    # With marks, because Arrow hands malformed rows out as UTF-8, or ends the process.
    source = Source(item.path, item.csv, marks=item.csv.is_utf8)

    def set_aside(row: Any) -> str:
        reason = f"it has {row.actual_columns} fields, and the header has {row.expected_columns}"
        text = original(row.text, "utf-8").decode(errors="backslashreplace")
        malformed.append(Malformed(row.number - 1, text, reason))  # the header is row 1
        return "skip"

    last, last_value = 0, b""
    for batch in _open_csv(source, item, set_aside):
        if len(batch):
            numbers = row_numbers(last, len(batch), [row.number for row in malformed])
            last, last_value = int(numbers[-1]), batch[item.last_column][-1].as_py() or b""
            wanted = batch.select(item.names)
            yield as_in_file(wanted) if source.has_marks else wanted, numbers
    if malformed and malformed[-1].number > last:
        unclosed = malformed[-1].text.count('"') % 2 == 1
    else:
        unclosed = is_unclosed(last_value, source)
    if unclosed:
        raise OSError("the last quotation mark is not closed; is the file cut off?")


def _open_csv(
    source: Source, item: Item, set_aside: Callable[[Any], str]
) -> Iterator[pa.RecordBatch]:
    columns = [*dict.fromkeys([*item.names, item.last_column])]
    try:
        reader = pyarrow.csv.open_csv(
            source,
            # One thread: only then do rows that are set aside have numbers.
            pyarrow.csv.ReadOptions(block_size=_BYTES, use_threads=False),
            pyarrow.csv.ParseOptions(
                delimiter=item.csv.separator,
                newlines_in_values=True,
                invalid_row_handler=set_aside,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.binary()),
                include_columns=columns,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):  # Arrow's name for a header without rows
            return iter(())
        raise
    return iter(reader)


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
