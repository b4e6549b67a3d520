"""Opening a file of rows: its bytes, decompressed and as UTF-8, and its header."""

import codecs
import csv
import difflib
import gzip
import io
import re
import zlib

import pyarrow as pa
import tensorflow as tf
from tfx.dsl.io import fileio

from components.errors import PipelineStop
from components.ingest.settings import CsvFormat, IngestSettings
from components.ingest.spans import VANISHED, vanished

UNREADABLE = (OSError, EOFError, zlib.error, tf.errors.OpError)
MARK = "\ufdd0"
"""Stands before a byte that is no text in the file's encoding; Unicode keeps it for such uses."""
_HEADER_LIMIT = 1 << 20
_GROWTH = 5
"""UTF-8 takes at most so many bytes for one of another encoding, or for a marked one."""
_SEPARATORS = ";\t|,"


class Source(io.RawIOBase):
    """The bytes of a file, decompressed if its name ends in .gz; remembers how the file ends.

    Text in another encoding comes as UTF-8. `has_marks`: whether there was a MARK so far.
    """

    def __init__(self, path: str, form: CsvFormat | None = None, marks: bool = False) -> None:
        """Opens the file.

        Args:
            path: The file.
            form: Has the encoding; UTF-8 if unset.
            marks: Make it UTF-8 whatever the bytes are: MARK and the byte as a character stand for
                one that is no text. Otherwise bytes of UTF-8 come unseen, and those of another
                encoding raise a ValueError.
        """
        super().__init__()
        raw = fileio.open(path, "rb")
        self._file = gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw
        self._decoder: codecs.IncrementalDecoder | None = None
        form = form or CsvFormat()
        if marks or not form.is_utf8:
            decoder = codecs.getincrementaldecoder(form.encoding)
            self._decoder = decoder("surrogateescape" if marks else "strict")
        self.last = b""
        self.has_marks = False

    def readable(self) -> bool:
        """True: what Python asks before it decodes text from here."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end; `last` is the last byte that ends no line."""
        data: bytes = self._decoded(size) if self._decoder else self._file.read(size)
        self.last = data.rstrip(b"\r\n")[-1:] or self.last
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills `buffer` as far as the file goes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _decoded(self, size: int) -> bytes:
        assert self._decoder is not None
        text, data = "", b"more"
        while data and not text:
            data = self._file.read(max(1, size // _GROWTH) if size >= 0 else -1)
            text = self._decoder.decode(data, final=not data)
        marked, count = re.subn("[\udc80-\udcff]", _marked, text)
        self.has_marks = self.has_marks or count > 0
        return marked.encode()


def _marked(escaped: re.Match[str]) -> str:
    return MARK + chr(ord(escaped[0]) - 0xDC00)


def original(text: str, encoding: str) -> bytes:
    """The bytes in the file of a text that has marks."""
    escaped = re.sub(f"{MARK}(.)", lambda found: chr(ord(found[1]) + 0xDC00), text, flags=re.DOTALL)
    return escaped.encode(encoding, "surrogateescape")


def as_in_file(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Binary columns of a UTF-8 file, with the bytes that stand in it instead of marks."""
    mark = MARK.encode()

    def restored(value: bytes | None) -> bytes | None:
        return original(value.decode(), "utf-8") if value and mark in value else value

    columns = [pa.array(map(restored, column.to_pylist()), column.type) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def header_of(path: str, form: CsvFormat) -> list[str]:
    """The names in a CSV file's header, in the file's order; bytes that are no text are "\ufffd".

    Raises:
        PipelineStop: If the file is empty.
    """
    text = Source(path, form, marks=True).read(_HEADER_LIMIT).decode("utf-8-sig", "replace")
    text = re.sub(f"{MARK}.", "\ufffd", text, flags=re.DOTALL)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=form.separator)
        header = next((row for row in rows if row), [])
    except csv.Error:  # A field too long to be a name: no CSV at all.
        header = [text]
    if not header:
        raise PipelineStop(f"{path} is empty. A header with the column names is expected.")
    return header


def read_header(path: str, settings: IngestSettings) -> list[str]:
    """The names in a CSV file's header, in the file's order.

    Raises:
        PipelineStop: If the file is empty, or its columns aren't exactly those of the settings.
    """
    header = header_of(path, settings.csv)
    check_names(path, header, settings.names(), hint(header, settings.csv))
    return header


def check_names(path: str, found: list[str], names: list[str], why: str = "") -> None:
    """Compares the columns of a file with those of the schema.

    Args:
        path: The file.
        found: Its columns.
        names: The schema's.
        why: What may be the cause, in a sentence.

    Raises:
        PipelineStop: If they differ in more than their order.
    """
    mistakes = [*_mistakes(found, names)]
    if mistakes:
        raise PipelineStop(
            f"{path}: the header does not fit the schema: {'; '.join(mistakes)}. "
            + (why or "Correct the file, or make and review the schema anew.")
        )


def hint(header: list[str], form: CsvFormat) -> str:
    """Which setting makes a header look like this, as a sentence; "" if none that is known."""
    if any("\ufffd" in name or "\0" in name for name in header):
        return (
            f"It has bytes that are no {form.encoding}; set data.csv.encoding to the encoding of "
            f"the file, {_USUAL}."
        )
    others = [char for char in _SEPARATORS if char != form.separator and char in header[0]]
    if len(header) == 1 and others:
        best = max(others, key=header[0].count)
        shown = "\\t" if best == "\t" else best
        return (
            f"The header is one column with '{shown}' in it; set data.csv.separator to '{shown}'."
        )
    if not form.is_utf8 and any(_is_misread(name, form.encoding) for name in header):
        return f"It looks like UTF-8 read as {form.encoding}; set data.csv.encoding to utf-8."
    return ""


_USUAL = "e.g. latin-1, cp1252 or utf-16"


def _is_misread(name: str, encoding: str) -> bool:
    """Whether it is UTF-8 that was taken for another encoding."""
    try:
        return name != name.encode(encoding).decode("utf-8")
    except UnicodeError:
        return False


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
    if path.endswith(".parquet") and isinstance(error, pa.ArrowException | OSError):
        check = "it is whole and really Parquet"
    else:
        check = "it is whole and really gzip" if path.endswith(".gz") else "it may be read"
    why = " ".join(str(error).split())[:200].rstrip(".")
    return PipelineStop(f"{path} can't be read: {why}. Check that {check}, then run again.")


def undecodable(path: str, form: CsvFormat, setting: str = "data.csv") -> str:
    """The message about a file that is not in the encoding at all."""
    return (
        f"{path} is not in the encoding {form.encoding}. Set {setting}.encoding to the encoding of "
        f"the file, {_USUAL}."
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
