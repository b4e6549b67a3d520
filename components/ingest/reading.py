"""CSV files as a stream of Arrow record batches, in bounded memory."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from components.errors import PipelineStop
from components.ingest.diagnosis import explain
from components.ingest.opening import UNREADABLE, Source, is_unclosed, read_header, unreadable
from components.ingest.settings import IngestSettings

ARROW = {"INT": pa.int64(), "FLOAT": pa.float32(), "BYTES": pa.string()}
_BLOCKS = (1 << 20, 1 << 26)
"""Bytes read at a time; the second for files with a row longer than the first."""


def read(
    path: str, settings: IngestSettings, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a file in order.

    Args:
        path: The file; gzipped if its name ends in .gz.
        settings: The types and which columns must be filled.
        columns: The columns wanted, all if unset.

    Yields:
        Batches of about a megabyte of CSV, columns in the settings' order: int64, float32 (NaN is
        missing) and binary (UTF-8). An empty field is missing.

    Raises:
        PipelineStop: If the file can't be read or has no rows, or for rows that don't fit.
    """
    done = 0
    try:
        header = read_header(path, settings)
        for batch in _growing(path, header, settings, columns):
            done += len(batch)
            yield batch
    except ValueError as error:
        if "Empty CSV" not in str(error):  # Arrow's name for a header without rows.
            raise PipelineStop(explain(path, header, settings, done, str(error))) from error
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if not done:
        raise PipelineStop(f"{path} has a header, but no rows. Fill the file or move it away.")


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
    source = Source(path)
    names = columns or settings.names()
    batches = pyarrow.csv.open_csv(
        source,
        read_options=pyarrow.csv.ReadOptions(block_size=block),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
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
