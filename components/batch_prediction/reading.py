"""Blocks of rows from the input files, in bounded memory, each row with its number in the file."""

import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from components.batch_prediction.inputs import BLOCK_ROWS, UNREADABLE, Item, open_file, unreadable
from components.errors import PipelineStop

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
        with open_file(item.path) as file:
            is_csv = item.rows is None
            batches = _csv(file, item, malformed) if is_csv else _parquet(file, item)
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


def _parquet(file: Any, item: Item) -> Iterator[_Numbered]:
    done = item.before
    for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS, item.groups, item.names):
        yield batch, np.arange(done + 1, done + 1 + len(batch))
        done += len(batch)


def _csv(file: Any, item: Item, malformed: list[Malformed]) -> Iterator[_Numbered]:
    source = _Remembering(file)

    def set_aside(row: Any) -> str:
        reason = f"it has {row.actual_columns} fields, and the header has {row.expected_columns}"
        malformed.append(Malformed(row.number - 1, row.text, reason))  # the header is row 1
        return "skip"

    last, last_value = 0, b""
    for batch in _open_csv(source, item, set_aside):
        if len(batch):
            numbers = _numbers(last, len(batch), malformed)
            last, last_value = int(numbers[-1]), batch[item.last_column][-1].as_py() or b""
            yield batch.select(item.names), numbers
    if malformed and malformed[-1].number > last:
        unclosed = malformed[-1].text.count('"') % 2 == 1
    else:
        unclosed = b"\n" in last_value and source.last != b'"'
    if unclosed:
        raise OSError("the last quotation mark is not closed; is the file cut off?")


def _open_csv(
    source: "_Remembering", item: Item, set_aside: Callable[[Any], str]
) -> Iterator[pa.RecordBatch]:
    columns = [*dict.fromkeys([*item.names, item.last_column])]
    try:
        reader = pyarrow.csv.open_csv(
            source,
            # One thread: only then do rows that are set aside have numbers.
            pyarrow.csv.ReadOptions(block_size=_BYTES, use_threads=False),
            pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=set_aside),
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


def _numbers(last: int, count: int, malformed: list[Malformed]) -> np.ndarray:
    """The numbers of the next good rows after row `last`."""
    skipped = [row.number for row in malformed if row.number > last]
    numbers = np.arange(last + 1, last + 1 + count + len(skipped))
    return np.setdiff1d(numbers, skipped, assume_unique=True)[:count]


class _Remembering(io.RawIOBase):
    """The bytes of a file; `last` is the last one read that ends no line."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.last = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.last = data.rstrip(b"\r\n")[-1:] or self.last
        return data
