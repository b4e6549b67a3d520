"""Parquet files as a stream of Arrow record batches, in bounded memory."""

import io
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from tfx.dsl.io import fileio

from components.errors import PipelineStop
from components.ingest.arrow_types import ARROW, convert, decoded, fits, kind_of, missing_as_null
from components.ingest.checking import Column, check, is_infinite, unread
from components.ingest.opening import check_names
from components.ingest.problems import NOT_UTF8, TOO_LARGE, UNFILLED, BadRow, Problem, shorten
from components.ingest.settings import IngestSettings

ENDING = ".parquet"
_BUFFER = 1 << 20
_VALUES = 1 << 18
"""Read at a time, of all columns together."""
_UNREAD = {"INT": "is too large for 64 bits (INT)", "FLOAT": TOO_LARGE, "BYTES": NOT_UTF8}


class _File(io.RawIOBase):
    """A file of any file system that TFX knows, as pyarrow wants one."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = fileio.open(path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._file.tell())


def open_parquet(path: str) -> pq.ParquetFile:
    """Opens a file so that its columns are read a buffer at a time.

    Raises:
        PipelineStop: If a column has a type that no column of examples can have.
        OSError, ArrowException: If it can't be read, or is no Parquet.
    """
    file = pq.ParquetFile(_File(path), buffer_size=_BUFFER, pre_buffer=False)
    wrong = [f"'{f.name}' ({_short(f.type)})" for f in file.schema_arrow if kind_of(f.type) is None]
    if wrong:
        raise PipelineStop(
            f"{path}: {', '.join(wrong)}: a column must hold one number, text, date, time or truth "
            "value a row. Flatten or drop what holds lists, records or durations, then run again."
        )
    return file


def read_parquet(
    path: str, settings: IngestSettings, set_aside: Callable[[BadRow], None]
) -> Iterator[pa.RecordBatch]:
    """Yields the good rows of a file in order, as `reading.read` does.

    Args:
        path: The file.
        settings: The types and which columns must be filled.
        set_aside: Is given each bad row, in order.

    Raises:
        PipelineStop: If the columns are not the schema's.
        OSError, ArrowException: If the file can't be read to its end.
    """
    file = open_parquet(path)
    check_columns(path, file.schema_arrow, settings)
    names, filled, done = settings.names(), set(settings.filled()), 0
    size = max(1, _VALUES // len(names))
    for batch in file.iter_batches(size):
        columns = {name: _typed(batch[name], settings.columns[name]) for name in names}
        good, bad = check(columns, filled)
        for index in bad.tolist():
            problems = [*_problems(columns, index, settings)]
            set_aside(BadRow("row", done + index + 1, problems, None))
        done += len(batch)
        if len(good):
            yield good


def _typed(array: pa.Array, kind: str) -> Column:
    given = decoded(array)
    return Column(given, convert(given, ARROW[kind]))


def _problems(
    columns: dict[str, Column], index: int, settings: IngestSettings
) -> Iterator[Problem]:
    filled = set(settings.filled())
    for name, column in columns.items():
        one = Column(column.given.slice(index, 1), column.values.slice(index, 1))
        kind, value = settings.columns[name], one.given[0].as_py()
        if unread(one).any():
            yield Problem(name, _UNREAD[kind], shorten(repr(value)))
        elif kind == "FLOAT" and is_infinite(one).any():
            yield Problem(name, TOO_LARGE, shorten(repr(value)))
        elif name in filled and missing_as_null(one.values).null_count:
            yield Problem(name, UNFILLED)


def check_columns(path: str, found: pa.Schema, settings: IngestSettings) -> None:
    """Compares a file's columns with the schema's.

    Raises:
        PipelineStop: With every name, or every type, that differs.
    """
    check_names(path, found.names, settings.names())
    wrong = [
        f"column '{field.name}' is {_short(field.type)} in the file and {kind} in the schema"
        for field in found
        if not fits(field.type, kind := settings.columns[field.name])
    ]
    if not wrong:
        return
    gaps = any(pa.types.is_floating(f.type) and settings.columns[f.name] == "INT" for f in found)
    tip = (
        " Pandas makes whole numbers with gaps floats; .astype('Int64') keeps them whole."
        if gaps
        else ""
    )
    raise PipelineStop(
        f"{path} does not fit the schema: {'; '.join(wrong)}. Write the columns with the schema's "
        f"types (a whole number may be FLOAT), or make and review the schema anew.{tip}"
    )


def _short(given: pa.DataType) -> str:
    text = str(given)
    return text if len(text) <= 40 else text[:40] + "…"
