"""A file of rows before DuckDB reads it: what it is, whole, as UTF-8, and with which columns.

What a file is stands in its name, and its first bytes must agree:

- `.parquet`: Parquet;
- `.jsonl`, `.ndjson`, `.json`: JSON lines, an object a line; also with `.gz` or `.zst` behind;
- any other name: CSV with a header; also with `.gz` or `.zst` behind.
"""

import codecs
import csv
import io
import os
import re
import stat
from collections.abc import Iterator
from typing import IO, Literal, NamedTuple

import pyarrow as pa

from components.errors import PipelineStop
from components.ingest.settings import CsvFormat

FileKind = Literal["csv", "json", "parquet"]
BLOCK = 1 << 20
_HEADER = 1 << 20
_PACKED = {".gz": "gzip", ".zst": "zstd"}
_JSON = (".jsonl", ".ndjson", ".json")
_USUAL = "e.g. latin-1, cp1252 or utf-16"
_OTHER = "\ufffd"
"""Stands for bytes that are no text in the file's encoding."""
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "Parquet", ".parquet"),
    (b"\x1f\x8b", "gzip", ".gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", ".zst"),
    (b"PK\x03\x04", "a zip archive, or a workbook (.xlsx, .ods)", ""),
    (b"PK\x05\x06", "an empty zip archive", ""),
    (b"\xd0\xcf\x11\xe0", "an old Office document (.xls)", ""),
    (b"BZh", "bzip2", ""),
    (b"\xfd7zXZ", "xz", ""),
    (b"7z\xbc\xaf", "a 7-Zip archive", ""),
    (b"Rar!", "a RAR archive", ""),
    (b"ARROW1", "Arrow IPC (Feather)", ""),
    (b"ORC", "ORC", ""),
    (b"Obj\x01", "Avro", ""),
    (b"SQLite format 3", "an SQLite database", ""),
    (b"\x89HDF", "HDF5", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\x80\x04\x95", "a pickle", ""),
    (b"\x80\x05\x95", "a pickle", ""),
    (b"%PDF", "a PDF", ""),
    (b"<!DOCTYPE", "an HTML page", ""),
    (b"<html", "an HTML page", ""),
    (b"<?xml", "XML", ""),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself (git lfs pull)", ""),
)


class Plain(NamedTuple):
    """A file as DuckDB may open it."""

    kind: FileKind
    path: str
    """A name without wildcards, whole and decompressed."""
    header: list[str]
    """Of CSV; bytes that are no text in its encoding are "\\ufffd"."""
    skipped: int
    """Empty lines before the header of CSV."""


def kind_of(path: str) -> FileKind:
    """What a file is by its name."""
    name = path.lower()
    for ending in _PACKED:
        name = name.removesuffix(ending)
    if name.endswith(".parquet"):
        return "parquet"
    return "json" if name.endswith(_JSON) else "csv"


def make_plain(path: str, form: CsvFormat, link: str) -> Plain:
    """Makes a file readable under another name.

    Args:
        path: The file, in any file system that TFX knows.
        form: How it is written, if it is CSV or JSON.
        link: The other name. A local file in UTF-8 is linked; another one is copied, decompressed
            and made UTF-8.

    Raises:
        PipelineStop: If it can't be read to its end, is not what its name says, or is empty.
    """
    kind = kind_of(path)
    try:
        first = _first_bytes(path)
        _check_magic(path, kind, first)
        if _is_plain(path, kind, form):
            os.symlink(os.path.abspath(path), link)
        else:
            with open(link, "wb") as target:
                target.writelines(_decoded(path, kind, form))
    except UnicodeError as error:
        raise PipelineStop(
            f"{path} is not in the encoding {form.encoding}. Set data.csv.encoding to the encoding "
            f"of the file, {_USUAL}."
        ) from error
    except PipelineStop:
        raise
    except Exception as error:
        # A store's client may raise anything.
        if "://" in path or isinstance(error, OSError | EOFError):
            raise unreadable(path, error) from error
        raise
    if kind != "csv":
        return Plain(kind, link, [], 0)
    header, skipped = _header(link, form)
    if not header:
        raise PipelineStop(f"{path} is empty. A header with the column names is expected.")
    return Plain(kind, link, header, skipped)


def has_two_line_ends(plain: Plain) -> bool:
    """Whether some lines of a text file end in a line feed, and others in a carriage return too."""
    both = feeds = 0
    with open(plain.path, "rb") as source:
        last = b""
        while block := source.read(BLOCK):
            feeds += block.count(b"\n")
            both += block.count(b"\r\n") + (last == b"\r" and block.startswith(b"\n"))
            last = block[-1:]
    return 0 < both < feeds


def with_one_line_end(plain: Plain) -> Plain:
    """A copy with a line feed alone at all line ends."""
    to = f"{plain.path}-lines"
    with open(plain.path, "rb") as source, open(to, "wb") as target:
        carry = b""
        while read := source.read(BLOCK):
            block = carry + read
            carry = b"\r" if block.endswith(b"\r") else b""
            target.write(block.removesuffix(b"\r").replace(b"\r\n", b"\n"))
        target.write(carry)
    return plain._replace(path=to)


def count_lines(plain: Plain) -> int:
    """How many lines a text file has."""
    count, last = 0, b"\n"
    with open(plain.path, "rb") as source:
        while block := source.read(BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def unreadable(path: str, error: Exception) -> PipelineStop:
    """The error for a file that can't be read to its end."""
    if isinstance(error, FileNotFoundError):
        return PipelineStop(
            f"{path} is not there, or has vanished since the run began. Put it back, then run "
            "again."
        )
    packed = next((_PACKED[e] for e in _PACKED if path.endswith(e)), None)
    named = packed or ("Parquet" if kind_of(path) == "parquet" else None)
    check = f"it is whole and really {named}" if named else "it may be read"
    why = " ".join(str(error).split("\n")[0].split())
    why = re.sub(r"'?/[^ ']*/tables-\w+/[-\w]+'?", "it", why)[:200].rstrip(".")
    return PipelineStop(f"{path} can't be read: {why}. Check that {check}, then run again.")


def hint(header: list[str], form: CsvFormat) -> str:
    """Which setting makes a header look like this, as a sentence; "" if none that is known."""
    if any(_OTHER in name or "\0" in name for name in header):
        return (
            f"It has bytes that are no {form.encoding}; set data.csv.encoding to the encoding of "
            f"the file, {_USUAL}."
        )
    others = [char for char in ";\t|," if char != form.separator and char in header[0]]
    if len(header) == 1 and others:
        best = max(others, key=header[0].count)
        shown = "\\t" if best == "\t" else best
        return (
            f"The header is one column with '{shown}' in it; set data.csv.separator to '{shown}'."
        )
    if not form.is_utf8 and any(_is_misread(name, form.encoding) for name in header):
        return f"It looks like UTF-8 read as {form.encoding}; set data.csv.encoding to utf-8."
    return ""


def _first_bytes(path: str) -> bytes:
    if "://" not in path:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
            raise PipelineStop(f"{path} is {what}, not a file. Name a file, or narrow the pattern.")
    with _opened(path) as file:
        return file.read(64)


def _check_magic(path: str, kind: FileKind, first: bytes) -> None:
    """Compares what a file is with what its name says."""
    said = next((e for e in _PACKED if path.endswith(e)), ".parquet" if kind == "parquet" else "")
    start = first.removeprefix(codecs.BOM_UTF8).lstrip()
    for magic, name, ending in _MAGIC:
        if first.startswith(magic) or (magic[:1] == b"<" and start.startswith(magic)):
            if ending == said and ending:
                return
            to_do = f"Let its name end in {ending}" if ending else "Write it as CSV or Parquet"
            raise PipelineStop(f"{path} is {name}, not what its name says. {to_do}.")
    if said and not first:
        raise PipelineStop(f"{path} is empty. Fill the file or move it away.")
    if said:
        expected = _PACKED.get(said, "Parquet")
        raise PipelineStop(
            f"{path} can't be read: it is no {expected}, which its name says. Check that it is "
            f"whole and really {expected}, then run again."
        )
    if kind == "json" and start.startswith(b"["):
        raise PipelineStop(
            f"{path} is one JSON array. Write one object a line (JSON lines), then run again."
        )


def _is_plain(path: str, kind: FileKind, form: CsvFormat) -> bool:
    is_packed = path.endswith(tuple(_PACKED))
    is_text = kind != "parquet"
    return os.path.exists(path) and not is_packed and not (is_text and not form.is_utf8)


def _opened(path: str) -> IO[bytes]:
    if os.path.exists(path) or "://" not in path:
        return open(path, "rb")
    from tfx.dsl.io import fileio  # TFX, which takes seconds

    file: IO[bytes] = fileio.open(path, "rb")
    return file


def _decoded(path: str, kind: FileKind, form: CsvFormat) -> Iterator[bytes]:
    packed = next((_PACKED[ending] for ending in _PACKED if path.endswith(ending)), None)
    is_text = kind != "parquet" and not form.is_utf8
    decoder = codecs.getincrementaldecoder(form.encoding)("replace") if is_text else None
    with _opened(path) as file:
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), packed) if packed else file
        while block := stream.read(BLOCK):
            yield decoder.decode(block).encode("utf-8", "replace") if decoder else block
        if decoder:
            yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _header(path: str, form: CsvFormat) -> tuple[list[str], int]:
    with open(path, "rb") as file:
        text = file.read(_HEADER).decode("utf-8-sig", "replace")
    quote = {"quotechar": form.quote} if form.quote else {"quoting": csv.QUOTE_NONE}
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=form.separator, **quote)
        for number, row in enumerate(rows):
            if row:
                return row, number
    except csv.Error:  # A field too long to be a name: no CSV at all.
        return [text[:100]], 0
    return [], 0


def _is_misread(name: str, encoding: str) -> bool:
    """Whether it is UTF-8 that was taken for another encoding."""
    try:
        return name != name.encode(encoding).decode("utf-8")
    except UnicodeError:
        return False
