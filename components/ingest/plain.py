"""A file of rows before DuckDB reads it: what it is, whole, as UTF-8, and with which columns.

What a file is stands in its name, and its first bytes must agree: `.parquet` is Parquet; `.jsonl`,
`.ndjson` and `.json` are JSON lines, any other name is CSV with a header, both also with `.gz` or
`.zst` behind.
"""

import codecs
import contextlib
import csv
import io
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Literal, NamedTuple

import pyarrow as pa

from components.errors import PipelineStop
from components.ingest.settings import CsvFormat

FileKind = Literal["csv", "json", "parquet"]
_BLOCK = 1 << 20
_PACKED = {".gz": "gzip", ".zst": "zstd"}
OTHER = "\ufffd"
"""Stands for bytes that are no text in the file's encoding."""
_MAGIC: dict[bytes, tuple[str, str]] = {
    b"PAR1": ("Parquet", ".parquet"),
    b"\x1f\x8b": ("gzip", ".gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".zst"),
    b"PK\x03\x04": ("a zip archive, or a workbook (.xlsx, .ods)", ""),
    b"PK\x05\x06": ("an empty zip archive", ""),
    b"\xd0\xcf\x11\xe0": ("an old Office document (.xls)", ""),
    b"BZh": ("bzip2", ""),
    b"\xfd7zXZ": ("xz", ""),
    b"7z\xbc\xaf": ("a 7-Zip archive", ""),
    b"Rar!": ("a RAR archive", ""),
    b"ARROW1": ("Arrow IPC (Feather)", ""),
    b"ORC": ("ORC", ""),
    b"Obj\x01": ("Avro", ""),
    b"SQLite format 3": ("an SQLite database", ""),
    b"\x89HDF": ("HDF5", ""),
    b"\x93NUMPY": ("a NumPy array", ""),
    b"\x80\x04\x95": ("a pickle", ""),
    b"\x80\x05\x95": ("a pickle", ""),
    b"%PDF": ("a PDF", ""),
    b"<!DOCTYPE": ("an HTML page", ""),
    b"<html": ("an HTML page", ""),
    b"<?xml": ("XML", ""),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file itself (git lfs pull)", ""),
}


class Source(NamedTuple):
    """A file as DuckDB may open it, or a query in place of one."""

    file: str
    """As it is named in messages."""
    kind: FileKind
    path: str = ""
    """A name without wildcards; what is there is whole and decompressed, text is UTF-8."""
    types: Mapping[str, str] = {}
    """The columns in order with DuckDB's types; {} of JSON and Parquet until DuckDB has looked."""
    skipped: int = 0
    """Empty lines before the header of CSV."""
    line_end: str = ""
    """Behind that header."""
    lines: int = 0
    """Of CSV."""
    is_mixed: bool = False
    """Whether some lines of CSV end in a line feed, and others in a carriage return too."""
    query: str = ""
    """SQL in place of a file."""


def open_source(file: str, form: CsvFormat, path: str) -> Source:
    """Makes a file readable under another name.

    Args:
        file: In any file system that TFX knows.
        form: How it is written, if it is CSV or JSON.
        path: The other name. A local file in UTF-8 is linked; another one is copied, decompressed
            and made UTF-8.

    Raises:
        PipelineStop: If it can't be read to its end, is not what its name says, is empty, or has a
            header that can't be used.
    """
    kind, packing = _said(file)
    encoding = "" if kind == "parquet" or form.is_utf8 else form.encoding
    try:
        with _opened(file) as stream:
            _check_format(file, stream.read(64))
            if packing or encoding or "://" in file:
                stream.seek(0)
                with open(path, "wb") as target:
                    target.writelines(_decoded(stream, packing, encoding))
            else:
                os.symlink(os.path.abspath(file), path)
    except PipelineStop:
        raise
    except Exception as error:  # A store's client may raise anything.
        raise unreadable(file, error) from error
    return _csv(file, form, path) if kind == "csv" else Source(file, kind, path)


def with_one_line_end(source: Source) -> Source:
    """A copy with a line feed alone at all line ends."""
    to = f"{source.path}-lines"
    with open(source.path, "rb") as lines, open(to, "wb") as target:
        target.writelines(line[:-2] + b"\n" if line.endswith(b"\r\n") else line for line in lines)
    return source._replace(path=to, line_end="\n")


def unreadable(file: str, error: Exception) -> PipelineStop:
    """The error for a file that can't be read to its end."""
    kind, packing = _said(file)
    named = _PACKED.get(packing) or ("Parquet" if kind == "parquet" else None)
    check = f"it is whole and really {named}" if named else "it is there and may be read"
    if isinstance(error, UnicodeError):
        check = "data.csv.encoding is its encoding, e.g. latin-1, cp1252 or utf-16"
    why = " ".join(str(error).split("\n")[0].split())
    why = re.sub(r"'?/[^ ']*/tables-\w+/[-\w]+'?", "it", why)[:200].rstrip(".")
    return PipelineStop(f"{file} can't be read: {why}. Check that {check}, then run again.")


def check_names(file: str, names: Sequence[str], why: str = "") -> None:
    """Stops at columns that cannot be told apart; `why` may be the setting that makes them so."""
    counts = Counter(names).items()
    mistakes = [f"column '{name}' is there {count} times" for name, count in counts if count > 1]
    mistakes += [f"column {i} has no name" for i, name in enumerate(names, 1) if not name.strip()]
    if not names:
        mistakes = ["it has no columns"]
    if mistakes or why:
        cut = "; ".join([*mistakes[:5], *(["…"] if len(mistakes) > 5 else [])])
        told = f"the header can't be used: {cut}. " if mistakes else ""
        raise PipelineStop(f"{file}: {told}{why or 'Name each column once, then run again.'}")


def hint(header: Sequence[str], form: CsvFormat) -> str:
    """Which setting makes a header look like this, as a sentence; "" if none that is known."""
    if any(OTHER in name or "\0" in name for name in header):
        return (
            f"It has bytes that are no {form.encoding}; set data.csv.encoding to the encoding of "
            "the file, e.g. latin-1, cp1252 or utf-16."
        )
    others = [char for char in ";\t|," if char != form.separator and char in "".join(header)]
    if len(header) == 1 and others:
        best = max(others, key=header[0].count).replace("\t", "\\t")
        return f"The header is one column with '{best}' in it; set data.csv.separator to '{best}'."
    with contextlib.suppress(UnicodeError):  # Names that are UTF-8 when taken back are hardly else.
        back = [] if form.is_utf8 else [name.encode(form.encoding).decode() for name in header]
        if back and back != [*header]:
            return f"It looks like UTF-8 read as {form.encoding}; set data.csv.encoding to utf-8."
    return ""


def _said(file: str) -> tuple[FileKind, str]:
    """What a file is by its name, and the ending that says how it is packed."""
    packing = next((ending for ending in _PACKED if file.endswith(ending)), "")
    name = file.removesuffix(packing).lower()
    if name.endswith(".parquet"):
        return "parquet", packing
    return "json" if name.endswith((".jsonl", ".ndjson", ".json")) else "csv", packing


def _check_format(file: str, first: bytes) -> None:
    """Compares the first bytes of a file with what its name says."""
    kind, packing = _said(file)
    said = packing or (".parquet" if kind == "parquet" else "")
    start = first.removeprefix(codecs.BOM_UTF8).lstrip()
    starts = {magic: start if magic.startswith(b"<") else first for magic in _MAGIC}
    found = [_MAGIC[magic] for magic, text in starts.items() if text.startswith(magic)]
    if found and (not said or found[0][1] != said):
        name, ending = found[0]
        to_do = f"Let its name end in {ending}" if ending else "Write it as CSV or Parquet"
        raise PipelineStop(f"{file} is {name}, not what its name says. {to_do}.")
    if said and not found:
        expected = _PACKED.get(said, "Parquet")
        why = f"it is no {expected}, which its name says" if first else "it is empty"
        raise unreadable(file, ValueError(why))
    if kind == "json" and start.startswith(b"["):
        raise PipelineStop(
            f"{file} is one JSON array. Write one object a line (JSON lines), then run again."
        )


def _opened(file: str) -> IO[bytes]:
    if "://" not in file:
        if not stat.S_ISREG(os.stat(file).st_mode):
            what = "a folder" if os.path.isdir(file) else "a pipe, a socket or a device"
            raise PipelineStop(f"{file} is {what}, not a file. Name a file, or narrow the pattern.")
        return open(file, "rb")
    from tfx.dsl.io import fileio  # TFX, which takes seconds

    stream: IO[bytes] = fileio.open(file, "rb")
    return stream


def _decoded(stream: IO[bytes], packing: str, encoding: str) -> Iterator[bytes]:
    """Yields a file decompressed and, if it has an encoding, as UTF-8."""
    if packing:
        stream = pa.CompressedInputStream(pa.PythonFile(stream, "r"), _PACKED[packing])
    decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
    while block := stream.read(_BLOCK):
        yield decoder.decode(block).encode("utf-8", "replace") if decoder else block
    if decoder:
        yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _csv(file: str, form: CsvFormat, path: str) -> Source:
    """A file of CSV with its header and line ends."""
    with open(path, "rb") as stream:
        first = stream.read(_BLOCK).decode("utf-8-sig", "replace")
    lines = [*io.StringIO(first, newline="")]
    quote = {"quotechar": form.quote} if form.quote else {"quoting": csv.QUOTE_NONE}
    rows = csv.reader(lines, delimiter=form.separator, **quote)
    try:
        header, skipped = next(((row, n) for n, row in enumerate(rows) if row), ([], 0))
    except csv.Error:  # A field too long to be a name: no CSV at all.
        header, skipped = [first[:100]], 0
    if not header:
        raise PipelineStop(f"{file} is empty. A header with the column names is expected.")
    check_names(file, header, hint(header, form))
    last = lines[rows.line_num - 1]
    line_end = last[len(last.rstrip("\r\n")) :]
    types = dict.fromkeys(header, "VARCHAR")
    return Source(file, "csv", path, types, skipped, line_end, *_line_ends(path))


def _line_ends(path: str) -> tuple[int, bool]:
    """How many lines a text file has, and whether they end in different ways."""
    both = feeds = 0
    last = b""
    with open(path, "rb") as source:
        while block := source.read(_BLOCK):
            feeds += block.count(b"\n")
            both += block.count(b"\r\n") + (last == b"\r" and block.startswith(b"\n"))
            last = block[-1:]
    return feeds + (last not in (b"\n", b"")), 0 < both < feeds
