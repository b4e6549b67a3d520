"""Opening a CSV file: its bytes, decompressed, and its header."""

import csv
import difflib
import gzip
import io
import zlib

import tensorflow as tf
from tfx.dsl.io import fileio

from components.errors import PipelineStop
from components.ingest.settings import IngestSettings
from components.ingest.spans import VANISHED, vanished

UNREADABLE = (OSError, EOFError, zlib.error, tf.errors.OpError)
_HEADER_LIMIT = 1 << 20


class Source(io.RawIOBase):
    """The bytes of a file, decompressed if its name ends in .gz; remembers how the file ends."""

    def __init__(self, path: str) -> None:
        super().__init__()
        raw = fileio.open(path, "rb")
        self._file = gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw
        self.last = b""

    def readable(self) -> bool:
        """True: what Python asks before it decodes text from here."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end; `last` is the last byte that ends no line."""
        data: bytes = self._file.read(size)
        self.last = data.rstrip(b"\r\n")[-1:] or self.last
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills `buffer` as far as the file goes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def read_header(path: str, settings: IngestSettings) -> list[str]:
    """The names in the header, in the file's order.

    Raises:
        PipelineStop: If the file is empty, or its columns aren't exactly those of the settings.
    """
    text = Source(path).read(_HEADER_LIMIT).decode("utf-8-sig", "replace")
    try:
        header = next((row for row in csv.reader(io.StringIO(text, newline="")) if row), [])
    except csv.Error:  # A field too long to be a name: no CSV at all.
        header = [text]
    if not header:
        raise PipelineStop(f"{path} is empty. A header with the column names is expected.")
    mistakes = [*_mistakes(header, settings.names())]
    if mistakes:
        raise PipelineStop(
            f"{path}: the header does not fit the schema: {'; '.join(mistakes)}. Correct the file, "
            "or make and review the schema anew."
        )
    return header


def is_unclosed(last_value: str | bytes, source: Source) -> bool:
    """Whether a file read to its end ends inside quotation marks.

    Args:
        last_value: The last field of the last row.
        source: What it was read from.
    """
    newline = "\n" if isinstance(last_value, str) else b"\n"
    return newline in last_value and source.last != b'"'  # type: ignore[operator]


def unreadable(path: str, error: Exception) -> PipelineStop:
    """The error for a file that can't be read to its end."""
    if isinstance(error, VANISHED):
        return vanished(path)
    check = "it is whole and really gzip" if path.endswith(".gz") else "it may be read"
    return PipelineStop(
        f"{path} can't be read: {str(error)[:200]}. Check that {check}, then run again."
    )


def _mistakes(header: list[str], names: list[str]) -> list[str]:
    missing = [name for name in names if name not in header]
    mistakes = [
        f"column {_short(name)} is there {header.count(name)} times"
        for name in dict.fromkeys(header)
        if header.count(name) > 1
    ]
    for name in header:
        if name not in names:
            close = difflib.get_close_matches(name, missing, 1, 0.5)
            guess = f" (did you mean '{close[0]}'?)" if close else ""
            mistakes.append(f"column {_short(name)} is not in the schema{guess}")
    return mistakes[:5] + ([f"missing: {', '.join(missing)}"] if missing else [])


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:60] + "…")
