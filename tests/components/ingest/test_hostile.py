"""Files that nobody should be given: one clear message each, never a traceback and never a hang."""

import gzip
import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import PipelineStop
from components.ingest.rows import Columns, tables
from components.ingest.settings import CsvFormat

KINDS = {"i": "INT", "f": "FLOAT", "t": "BYTES"}
GOOD = b"i,f,t\n1,1,a\n"
TABLE = pa.table({"i": [1], "f": [1.0], "t": ["a"]})


def read(path: str, form: CsvFormat | None = None) -> int:
    """The rows of a file in which none is bad."""
    with tables([path], form) as reader:
        reading = reader.read(path, Columns(KINDS, {"i"}, "t"))
        rows = sum(len(batch) for batch in reading)
        reading.check()
        return rows


def parquet(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"i": [1], "f": [1.0], "t": ["a"], **columns}), sink)
    return sink.getvalue().to_pybytes()


def feather() -> bytes:
    sink = pa.BufferOutputStream()
    pa.feather.write_feather(TABLE, sink, compression="uncompressed")
    return sink.getvalue().to_pybytes()


def orc() -> bytes:
    sink = pa.BufferOutputStream()
    pa.orc.write_table(TABLE, sink)
    return sink.getvalue().to_pybytes()


def row(text: str) -> bytes:
    return GOOD + text.encode() + b"\n"


HOSTILE = [
    # What is no table at all.
    ("a.csv", b"", "is empty"),
    ("a.csv", b"\n\n\n", "is empty"),
    ("a.csv", b"\xef\xbb\xbf", "is empty"),
    ("a.csv", b"PK\x03\x04" + bytes(99), "a zip archive, or a workbook"),
    ("a.xlsx", b"PK\x03\x04" + bytes(99), "a zip archive, or a workbook"),
    ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(99), "an old Office document"),
    ("a.csv", gzip.compress(GOOD), "is gzip, .* end in .gz"),
    ("a.csv", pa.compress(GOOD, "zstd", asbytes=True), "is zstd, .* end in .zst"),
    ("a.csv", parquet(), "is Parquet, .* end in .parquet"),
    ("a.csv.gz", parquet(), "is Parquet"),
    ("a.csv", feather(), "Arrow IPC"),
    ("a.csv", orc(), "is ORC"),
    ("a.csv", b"BZh91AY", "is bzip2"),
    ("a.csv", b"\xfd7zXZ\x00", "is xz"),
    ("a.csv", b"7z\xbc\xaf'\x1c", "7-Zip"),
    ("a.csv", b"Rar!\x1a", "RAR"),
    ("a.csv", b"Obj\x01", "Avro"),
    ("a.csv", b"SQLite format 3\x00", "SQLite"),
    ("a.csv", b"\x89HDF\r\n", "HDF5"),
    ("a.csv", b"\x93NUMPY\x01", "NumPy"),
    ("a.csv", b"\x80\x04\x95\x00", "a pickle"),
    ("a.csv", b"%PDF-1.7", "a PDF"),
    ("a.csv", b"<!DOCTYPE html><html></html>", "an HTML page"),
    ("a.csv", b"\n <html>", "an HTML page"),
    ("a.csv", b"<?xml version='1.0'?>", "is XML"),
    ("a.csv", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ("a.csv", bytes(range(256)) * 9, "bytes that are no utf-8"),
    ("a.csv", bytes(999), "bytes that are no utf-8"),
    ("a.csv", b"x" * 3_000_000, "the columns do not fit"),
    # Headers.
    ("a.csv", b"i,f\n1,1\n", "missing: t"),
    ("a.csv", b"i,f,t,i\n1,1,a,1\n", "column 'i' is there 2 times"),
    ("a.csv", b"i,f,t,\n1,1,a,1\n", "column 4 has no name"),
    ("a.csv", b"i,f,tt\n1,1,a\n", r"did you mean 't'\?"),
    ("a.csv", b"i;f;t\n1;1;a\n", "set data.csv.separator to ';'"),
    ("a.csv", b"i\tf\tt\n1\t1\ta\n", r"set data.csv.separator to '\\t'"),
    ("a.csv", "i,f,tä\n".encode("latin-1"), "set data.csv.encoding"),
    ("a.csv", GOOD.decode().encode("utf-16"), "set data.csv.encoding"),
    ("a.csv", b'"i,f,t\n1,1,a\n', "the columns do not fit"),
    # Rows.
    ("a.csv", row("x,1,a"), "line 3, column 'i': 'x' is not a whole number"),
    ("a.csv", row("1.5,1,a"), "line 3, column 'i': '1.5' is not a whole number"),
    ("a.csv", row("9223372036854775808,1,a"), "line 3, column 'i': .* too large for 64 bits"),
    ("a.csv", row("9" * 5000 + ",1,a"), "line 3, column 'i': .* too large for 64 bits"),
    ("a.csv", row("1,1e400,a"), "line 3, column 'f': '1e400' is too large for 32 bits"),
    ("a.csv", row("1,inf,a"), "line 3, column 'f': 'inf' is not a number"),
    ("a.csv", row("1,1;2,a"), "line 3, column 'f': '1;2' is not a number"),
    ("a.csv", row("٣,1,a"), "line 3, column 'i': '٣' is not a whole number"),
    ("a.csv", row("1\x00,1,a"), "line 3, column 'i': .* is not a whole number"),
    ("a.csv", row("NA,1,a"), "line 3, column 'i': 'NA' counts as empty"),
    ("a.csv", row(",1,a"), "line 3, column 'i': is empty, but must be filled"),
    ("a.csv", row("1,1"), "line 3: 2 fields, the header has 3"),
    ("a.csv", row("1,1,a,b"), "line 3: 4 fields, the header has 3"),
    ("a.csv", GOOD + b"1,1,\xff\n", "line 3, column 't': .* is not UTF-8"),
    ("a.csv", row('1,1,"a"b'), "text beside quotation marks"),
    ("a.csv", row('1,1,"a'), "is not closed"),
    ("a.csv", row('1,1,"a\n1,1,b\n1,1,c'), "is not closed"),
    ("a.csv", row("1,1," + "x" * 3_000_000), "longer than 2 MB"),
    ("a.csv", GOOD + b"1,1,a\r1,1,b\n1,1,c\r\n", "can't be read"),
    ("a.csv", GOOD * 30, "and 19 more"),
    # Packed files.
    ("a.csv.gz", b"", "is empty"),
    ("a.csv.gz", GOOD, "is no gzip"),
    ("a.csv.gz", gzip.compress(GOOD)[:-4], "can't be read"),
    ("a.csv.gz", gzip.compress(GOOD)[:-8] + bytes(8), "can't be read"),
    ("a.csv.gz", gzip.compress(GOOD) + b"rubbish", "can't be read"),
    ("a.csv.gz", gzip.compress(gzip.compress(GOOD)), "bytes that are no utf-8"),
    ("a.csv.zst", GOOD, "is no zstd"),
    ("a.csv.zst", pa.compress(GOOD * 999, "zstd", asbytes=True)[:-9], "can't be read"),
    # Parquet.
    ("a.parquet", b"", "is empty"),
    ("a.parquet", GOOD, "is no Parquet"),
    ("a.parquet", parquet()[:-8], "can't be read"),
    ("a.parquet", parquet()[:20] + b"\xff" * 40 + parquet()[60:], "can't be read"),
    ("a.parquet", parquet(f=[[1.0]]), r"is DOUBLE\[\], and FLOAT in"),
    ("a.parquet", parquet(t=[1.0]), "is DOUBLE, and BYTES in the schema"),
    ("a.parquet", parquet(i=pa.array([0], pa.date32())), "is DATE, and INT"),
    ("a.parquet", parquet(i=pa.array([2**63], pa.uint64())), "row 1, column 'i': .* 64 bits"),
    ("a.parquet", parquet(i=[1.5]), "row 1, column 'i': '1.5' is not a whole number"),
    ("a.parquet", parquet(i=[float("nan")]), "row 1, column 'i'"),
    ("a.parquet", parquet(f=[1e39]), "row 1, column 'f': '1e.39' is too large for 32 bits"),
    ("a.parquet", parquet(f=[float("inf")]), "row 1, column 'f': 'inf' is too large"),
    # JSON lines.
    ("a.jsonl", b"", "can't be used: it has no columns"),
    ("a.jsonl", b'[{"i": 1}]', "is one JSON array"),
    ("a.jsonl", b'{"i": 1, "f": 1}\n', "missing: t"),
    ("a.jsonl", b'{"i": 1, "f": 1, "t": "a"}\n{"i": 1', "line 2: .* is no JSON object"),
    ("a.jsonl", b'{"i": [1], "f": 1, "t": "a"}\n', "line 1, column 'i': .* not a whole number"),
    ("a.jsonl", b'{"i": 1, "f": true, "t": "a"}\n', "line 1, column 'f': 'true' is not a number"),
]


@pytest.mark.parametrize(
    ("name", "content", "words"), HOSTILE, ids=[f"{n}-{w[:40]}" for n, _, w in HOSTILE]
)
def test_a_hostile_file_is_explained(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PipelineStop, match=f"(?s){words}") as stop:
        read(str(path))
    assert str(stop.value).startswith(str(path))
    assert "tables-" not in str(stop.value)
    assert len(str(stop.value)) < 3_000
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-7", "shift_jis", "hz"])
def test_another_encoding_than_the_file_has_is_explained(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("i,f,tä\n1,1,é\n".encode())
    with pytest.raises(PipelineStop, match=r"(set|that) data\.csv\.encoding|fit"):
        read(str(path), CsvFormat(encoding=encoding))


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: os.symlink("/dev/zero", path),
        lambda path: os.symlink("nowhere", path),
        lambda path: None,
        lambda path: zipfile.ZipFile(path, "w").writestr("a.csv", GOOD),
    ],
    ids=["pipe", "folder", "device", "dangling link", "nothing", "zip"],
)
def test_what_is_no_file_is_explained(tmp_path: Path, make) -> None:
    path = str(tmp_path / "a.csv")
    make(path)
    with pytest.raises(PipelineStop, match=r"a\.csv"):
        read(path)


@pytest.mark.parametrize("path", ["s3://bucket/a.csv", "https://example.com/a.csv"])
def test_an_address_that_cannot_be_opened_is_explained(path: str) -> None:
    with pytest.raises(PipelineStop, match=f"^{path} can't be read: "):
        read(path)


pieces = st.sampled_from([
    b"1", b"2.5", b"a", b",", b",", b"\n", b"\n", b"\r\n", b"\r", b'"', b'""', b"\xff", b"\x00",
    b"\xc3\xa9", b" ", b";", b"NA", b"-", b"1e999", b"i,f,t\n", b"1,2,x\n", b"\\", b"'", b"#",
])  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.lists(pieces, max_size=40).map(b"".join), header=st.booleans(), packed=st.booleans())
def test_any_bytes_are_read_or_explained(
    tmp_path: Path, body: bytes, header: bool, packed: bool
) -> None:
    content = (b"i,f,t\n" if header else b"") + body
    path = str(tmp_path / ("fuzz.csv.gz" if packed else "fuzz.csv"))
    Path(path).write_bytes(gzip.compress(content) if packed else content)
    try:
        with tables([path]) as reader:
            reading = reader.read(path, Columns(KINDS))
            good = sum(len(batch) for batch in reading)
    except PipelineStop as stop:
        assert path in str(stop)
        return
    assert reading.seen == good + reading.bad
    assert len(reading.bad_rows) == min(reading.bad, 10)
