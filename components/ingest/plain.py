"""A file of rows before DuckDB reads it: what it is, whole, as UTF-8, and with which header.

What a file is stands in its name, and its first bytes must agree: `.parquet` is Parquet; `.jsonl`,
`.ndjson` and `.json` are JSON lines, any other name is CSV with a header, both also with `.gz` or
`.zst` behind.
"""

import codecs
import csv
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
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


class Plain(NamedTuple):
    """A file as DuckDB may open it."""

    kind: FileKind
    path: str = ""
    """A name without wildcards, whole and decompressed."""
    header: Sequence[str] = ()
    """Of CSV; bytes that are no text in its encoding are `OTHER`."""
    skipped: int = 0
    """Empty lines before the header of CSV."""
    lines: int = 0
    """Of CSV."""
    is_mixed: bool = False
    """Whether some lines of CSV end in a line feed, and others in a carriage return too."""


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
    kind, packed = _said(path)
    is_text = kind != "parquet" and not form.is_utf8
    try:
        with _opened(path) as file:
            first = file.read(64)
            _check_format(path, first)
            if "://" not in path and not packed and not is_text:
                os.symlink(os.path.abspath(path), link)
            else:
                with open(link, "wb") as target:
                    target.writelines(_decoded(path, form.encoding if is_text else ""))
    except UnicodeError as error:
        raise PipelineStop(
            f"{path} is not in the encoding {form.encoding}. Set data.csv.encoding to the encoding "
            "of the file, e.g. latin-1, cp1252 or utf-16."
        ) from error
    except PipelineStop:
        raise
    except Exception as error:  # A store's client may raise anything.
        raise unreadable(path, error) from error
    if kind != "csv":
        return Plain(kind, link)
    header, skipped = _header(link, form)
    if not header:
        raise PipelineStop(f"{path} is empty. A header with the column names is expected.")
    return Plain(kind, link, header, skipped, *_line_ends(link))


def with_one_line_end(plain: Plain) -> Plain:
    """A copy with a line feed alone at all line ends."""
    to = f"{plain.path}-lines"
    with open(plain.path, "rb") as source, open(to, "wb") as target:
        target.writelines(line[:-2] + b"\n" if line.endswith(b"\r\n") else line for line in source)
    return plain._replace(path=to)


def unreadable(path: str, error: Exception) -> PipelineStop:
    """The error for a file that can't be read to its end."""
    if isinstance(error, FileNotFoundError):
        return PipelineStop(
            f"{path} is not there, or has vanished since the run began. Put it "
            "back, then run again."
        )
    kind, packed = _said(path)
    named = _PACKED.get(packed) or ("Parquet" if kind == "parquet" else None)
    check = f"it is whole and really {named}" if named else "it may be read"
    why = " ".join(str(error).split("\n")[0].split())
    why = re.sub(r"'?/[^ ']*/tables-\w+/[-\w]+'?", "it", why)[:200].rstrip(".")
    return PipelineStop(f"{path} can't be read: {why}. Check that {check}, then run again.")


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
    if not form.is_utf8:
        try:  # Text that is UTF-8 when it is taken back is hardly another thing.
            if [*header] != [name.encode(form.encoding).decode() for name in header]:
                return (
                    f"It looks like UTF-8 read as {form.encoding}; set data.csv.encoding to utf-8."
                )
        except UnicodeError:
            pass
    return ""


def _said(path: str) -> tuple[FileKind, str]:
    """What a file is by its name, and the ending that says how it is packed."""
    packed = next((ending for ending in _PACKED if path.endswith(ending)), "")
    name = path.removesuffix(packed).lower()
    if name.endswith(".parquet"):
        return "parquet", packed
    return "json" if name.endswith((".jsonl", ".ndjson", ".json")) else "csv", packed


def _check_format(path: str, first: bytes) -> None:
    """Compares the first bytes of a file with what its name says."""
    kind, packed = _said(path)
    said = packed or (".parquet" if kind == "parquet" else "")
    start = first.removeprefix(codecs.BOM_UTF8).lstrip()
    for magic, (name, ending) in _MAGIC.items():
        if first.startswith(magic) or (magic[:1] == b"<" and start.startswith(magic)):
            if ending == said != "":
                return
            to_do = f"Let its name end in {ending}" if ending else "Write it as CSV or Parquet"
            raise PipelineStop(f"{path} is {name}, not what its name says. {to_do}.")
    if said and not first:
        raise PipelineStop(f"{path} is empty. Fill the file or move it away.")
    if said:
        expected = _PACKED.get(said, "Parquet")
        raise unreadable(path, ValueError(f"it is no {expected}, which its name says"))
    if kind == "json" and start.startswith(b"["):
        raise PipelineStop(
            f"{path} is one JSON array. Write one object a line (JSON lines), then run again."
        )


def _opened(path: str) -> IO[bytes]:
    if "://" not in path:
        if not stat.S_ISREG(os.stat(path).st_mode):
            what = "a folder" if os.path.isdir(path) else "a pipe, a socket or a device"
            raise PipelineStop(f"{path} is {what}, not a file. Name a file, or narrow the pattern.")
        return open(path, "rb")
    from tfx.dsl.io import fileio  # TFX, which takes seconds

    file: IO[bytes] = fileio.open(path, "rb")
    return file


def _decoded(path: str, encoding: str) -> Iterator[bytes]:
    """Yields a file decompressed and, if it has an encoding, as UTF-8."""
    packed = _PACKED.get(_said(path)[1])
    decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
    with _opened(path) as file:
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), packed) if packed else file
        while block := stream.read(_BLOCK):
            yield decoder.decode(block).encode("utf-8", "replace") if decoder else block
        if decoder:
            yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _header(path: str, form: CsvFormat) -> tuple[list[str], int]:
    with open(path, "rb") as file:
        text = file.read(_BLOCK).decode("utf-8-sig", "replace")
    quote = {"quotechar": form.quote} if form.quote else {"quoting": csv.QUOTE_NONE}
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=form.separator, **quote)
        return next(((row, number) for number, row in enumerate(rows) if row), ([], 0))
    except csv.Error:  # A field too long to be a name: no CSV at all.
        return [text[:100]], 0


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
