"""Files as a stream of Arrow record batches, in bounded memory; CSV without bad rows quickly."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from components.errors import PipelineStop
from components.ingest.arrow_types import ARROW
from components.ingest.diagnosis import FirstBadRows, explain
from components.ingest.opening import (
    UNREADABLE,
    Source,
    is_unclosed,
    read_header,
    undecodable,
    unreadable,
)
from components.ingest.parquet import ENDING, read_parquet
from components.ingest.problems import BadRow
from components.ingest.settings import IngestSettings
from components.ingest.tolerant import SetAside, read_tolerantly

_BLOCKS = (1 << 20, 1 << 26)
"""Bytes read at a time; the second for files with a row longer than the first."""


def read(
    path: str,
    settings: IngestSettings,
    columns: list[str] | None = None,
    set_aside: SetAside | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a file in order.

    Args:
        path: The file: Parquet if its name ends in .parquet, else CSV, gzipped if it ends in .gz.
        settings: The types and which columns must be filled.
        columns: The columns wanted, all if unset.
        set_aside: Is given each bad row, and the others go on; if unset, a bad row is an error.

    Yields:
        Batches of about a megabyte of CSV, columns in the settings' order: int64, float32 (NaN is
        missing) and binary (UTF-8). An empty field is missing.

    Raises:
        PipelineStop: If the file can't be read or has no rows, or for rows that don't fit.
    """
    good, bad = 0, 0

    def count(row: BadRow) -> None:
        nonlocal bad
        bad += 1
        if set_aside is not None:
            set_aside(row)

    try:
        for batch in _rows(path, settings, columns, count if set_aside else None):
            good += len(batch)
            yield batch
    except UnicodeError as error:
        raise PipelineStop(undecodable(path, settings.csv)) from error
    except (pa.ArrowException, *UNREADABLE) as error:
        raise unreadable(path, error) from error
    if not good + bad:
        raise PipelineStop(f"{path} has a header, but no rows. Fill the file or move it away.")


def _rows(
    path: str, settings: IngestSettings, columns: list[str] | None, set_aside: SetAside | None
) -> Iterator[pa.RecordBatch]:
    if path.endswith(ENDING):
        first = FirstBadRows(path)
        for batch in read_parquet(path, settings, set_aside or first):
            yield batch.select(columns) if columns else batch
        first.check()
    else:
        yield from _csv(path, settings, columns, set_aside)


def _csv(
    path: str, settings: IngestSettings, columns: list[str] | None, set_aside: SetAside | None
) -> Iterator[pa.RecordBatch]:
    """As fast as Arrow reads it, up to the first block with a bad row."""
    header = read_header(path, settings)
    wanted = None if set_aside else columns  # What makes a row bad may stand in any column.
    done = 0
    try:
        for batch in _growing(path, header, settings, wanted):
            done += len(batch)
            yield batch.select(columns) if columns else batch
        return
    except ValueError as error:
        if "Empty CSV" in str(error):  # Arrow's name for a header without rows.
            return
        if set_aside is None:
            raise PipelineStop(explain(path, header, settings, done, str(error))) from error
    for batch in read_tolerantly(path, header, settings, done, set_aside):
        yield batch.select(columns) if columns else batch


def _growing(
    path: str, header: list[str], settings: IngestSettings, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """Begins anew with a larger block, after the rows already read, if a row exceeds the block."""
    done = 0
    for block in _BLOCKS:
        try:
            for batch in _after(done, _stream(path, header, settings, columns, block)):
                done += len(batch)
                yield batch
            return
        except pa.ArrowInvalid as error:
            if "straddl" not in str(error) or block == _BLOCKS[-1]:
                raise


def _after(count: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows after the first `count`."""
    for batch in batches:
        if len(batch) > count:
            yield batch.slice(count)
        count = max(0, count - len(batch))


def _stream(
    path: str, header: list[str], settings: IngestSettings, columns: list[str] | None, block: int
) -> Iterator[pa.RecordBatch]:
    source = Source(path, settings.csv)
    names = columns or settings.names()
    batches = pyarrow.csv.open_csv(
        source,
        read_options=pyarrow.csv.ReadOptions(block_size=block),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=settings.csv.separator, newlines_in_values=True
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: ARROW[kind] for name, kind in settings.columns.items()},
            include_columns=names,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    filled = set(settings.filled()) & set(names)
    last = b""
    for batch in batches:
        if len(batch):
            checked = _checked(batch, filled)
            last = _last_value(checked, header[-1]) if header[-1] in names else b""
            yield checked
    if is_unclosed(last, source):
        raise ValueError("the last quotation mark is not closed")


def _checked(batch: pa.RecordBatch, filled: set[str]) -> pa.RecordBatch:
    arrays = [_clean(name, batch[name]) for name in batch.schema.names]
    for name, array in zip(batch.schema.names, arrays, strict=True):
        if name in filled and array.null_count:
            raise ValueError(f"column '{name}' has empty values")
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _clean(name: str, array: pa.Array) -> pa.Array:
    if pa.types.is_string(array.type):
        return array.cast(pa.binary())
    if pa.types.is_integer(array.type):
        return array
    if pc.any(pc.is_inf(array)).as_py():
        raise ValueError(f"column '{name}' has numbers too large for float32")
    return pc.if_else(pc.is_nan(array), None, array)


def _last_value(batch: pa.RecordBatch, column: str) -> bytes:
    value = batch[column][-1].as_py()
    return value if isinstance(value, bytes) else b""
