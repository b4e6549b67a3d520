"""The first rows of files as one table: what schema inference and proposals look at."""

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from components.errors import PipelineStop
from components.ingest.arrow_types import convert, decoded, kind_of, missing_as_null
from components.ingest.diagnosis import explain
from components.ingest.opening import (
    UNREADABLE,
    Source,
    header_of,
    hint,
    is_unclosed,
    unreadable,
)
from components.ingest.parquet import ENDING, open_parquet
from components.ingest.settings import CsvFormat, IngestSettings

_TYPES = (pa.int64(), pa.float64(), pa.string())
"""From the narrowest to the widest."""
_OF_KIND = dict(zip(("INT", "FLOAT", "BYTES"), _TYPES, strict=True))
_BLOCK = 1 << 26
"""Bytes of CSV read at a time. A row must fit into it."""


class _Part(NamedTuple):
    """The rows of a file; of CSV all columns are still text."""

    path: str
    rows: pa.Table
    is_typed: bool


def read_table(files: list[str], csv: CsvFormat, max_rows: int) -> pa.Table:
    """Reads the first rows of some files.

    Args:
        files: CSV, gzipped if the name ends in .gz, or Parquet if it ends in .parquet.
        csv: How the CSV files are written.
        max_rows: At most so many rows, of all files together.

    Returns:
        The columns in the order of the first file. One of CSV is int64 if all its values are whole
        numbers, else float64 if all are numbers, else string; one of Parquet is what its type
        says. Empty values and NaN are null.

    Raises:
        PipelineStop: If a file can't be read, has no rows, no usable header, or another header
            than the first.
    """
    if mistakes := [f"{'.'.join(path)} {message}" for path, message in csv.problems()]:
        raise PipelineStop(f"data.csv is wrong: {'; '.join(mistakes)}.")
    if not files:
        raise PipelineStop("There are no data files; see data.path and data.pattern.")
    parts: list[_Part] = []
    left = max_rows
    for path in files:
        if left > 0:
            part = _read(path, csv, left)
            _check_same(part, (parts or [part])[0])
            parts.append(part)
            left -= len(part.rows)
    columns = {name: _joined(name, parts) for name in parts[0].rows.column_names}
    return pa.table(columns)


def _read(path: str, csv: CsvFormat, count: int) -> _Part:
    try:
        if path.endswith(ENDING):
            part = _Part(path, _parquet(path, count), True)
        else:
            part = _Part(path, _csv(path, csv, count), False)
    except (pa.ArrowException, *UNREADABLE) as error:
        raise unreadable(path, error) from error
    if not len(part.rows):
        raise PipelineStop(f"{path} has a header, but no rows. Fill the file or move it away.")
    return part


def _parquet(path: str, count: int) -> pa.Table:
    file = open_parquet(path)
    _check_header(path, file.schema_arrow.names, "")
    batches, rows = [], 0
    for batch in file.iter_batches():
        columns = [_typed(column) for column in batch.columns]
        batches.append(pa.RecordBatch.from_arrays(columns, batch.schema.names))
        rows += len(batch)
        if rows >= count:
            break
    return pa.Table.from_batches(batches)[:count] if batches else pa.table({})


def _typed(column: pa.Array) -> pa.Array:
    wanted = _OF_KIND[kind_of(column.type) or "BYTES"]
    return missing_as_null(convert(decoded(column), wanted))


def _csv(path: str, csv: CsvFormat, count: int) -> pa.Table:
    header = header_of(path, csv)
    _check_header(path, header, hint(header, csv))
    blocks: list[pa.RecordBatch] = []
    rows = 0
    try:
        for block in _blocks(path, header, csv):
            blocks.append(block)
            rows += len(block)
            if rows >= count:
                break
    except ValueError as error:
        if "Empty CSV" in str(error):  # Arrow's name for a header without rows.
            return pa.table({})
        untyped = IngestSettings(
            columns=dict.fromkeys(header, "BYTES"), label="", split=None, csv=csv
        )
        raise PipelineStop(explain(path, header, untyped, rows, str(error))) from error
    return pa.Table.from_batches(blocks)[:count] if blocks else pa.table({})


def _blocks(path: str, header: list[str], csv: CsvFormat) -> Iterator[pa.RecordBatch]:
    source, last = Source(path, csv), ""
    for block in pyarrow.csv.open_csv(
        source,
        pyarrow.csv.ReadOptions(block_size=_BLOCK),
        pyarrow.csv.ParseOptions(delimiter=csv.separator, newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    ):
        if len(block):
            last = block[header[-1]][-1].as_py() or ""
            yield block
    if is_unclosed(last.encode(), source):
        raise ValueError("the last quotation mark is not closed")


def _check_header(path: str, names: list[str], why: str) -> None:
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    mistakes = [f"column '{name}' is there {names.count(name)} times" for name in twice]
    mistakes += [f"column {i} has no name" for i, name in enumerate(names, 1) if not name.strip()]
    if mistakes or why:
        shown = "; ".join([*mistakes[:5], *(["…"] if len(mistakes) > 5 else [])])
        told = f"the header can't be used: {shown}. " if mistakes else ""
        raise PipelineStop(f"{path}: {told}{why or 'Name each column once, then run again.'}")


def _check_same(part: _Part, first: _Part) -> None:
    names, expected = part.rows.column_names, first.rows.column_names
    if set(names) != set(expected):
        more = [name for name in names if name not in expected]
        fewer = [name for name in expected if name not in names]
        differ = [
            f"{len(group)} {word} ({', '.join(group[:5])})"
            for word, group in (("more", more), ("fewer", fewer))
            if group
        ]
        raise PipelineStop(
            f"{part.path} has other columns than {first.path}: {' and '.join(differ)}. All files "
            "must have the same; correct them, or narrow data.pattern."
        )


def _joined(name: str, parts: list[_Part]) -> pa.ChunkedArray:
    """A column of all files, in the type that holds what each of them has."""
    columns = [part.rows[name] for part in parts]
    types = [
        column.type if part.is_typed else _narrowest(column)
        for part, column in zip(parts, columns, strict=True)
    ]
    wanted = max(types, key=_TYPES.index)
    return pa.chunked_array([c for column in columns for c in _cast(column, wanted).chunks], wanted)


def _narrowest(texts: pa.ChunkedArray) -> pa.DataType:
    for wanted in _TYPES[:-1]:
        try:
            _cast(texts, wanted)
        except pa.ArrowInvalid:
            continue
        return wanted
    return pa.string()


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type == wanted or wanted == pa.string():
        return column.cast(wanted)
    if column.type == pa.string():
        column = pc.ascii_trim(column, " \t")
    numbers = column.cast(wanted, safe=column.type == pa.string())
    return pc.if_else(pc.is_nan(numbers), None, numbers) if wanted == pa.float64() else numbers
