"""The one reader of tables, over real files: values, bad rows, whole-file defects, and the lock."""

import base64
import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ingest.rows import BadRow, Columns, Kind, connect, tables
from components.ingest.settings import CsvFormat

KINDS: dict[str, Kind | None] = {"i": "INT", "f": "FLOAT", "t": "BYTES"}
Read = tuple[list[dict[str, Any]], list[BadRow]]


def read(path: Path | str, form: CsvFormat | None = None, **columns: Any) -> Read:
    with tables([str(path)], form) as reader:
        reading = reader.read(str(path), Columns(**{"kinds": KINDS, **columns}))
        rows = [row for batch in reading for row in batch.to_pylist()]
        wanted = Columns(**{"kinds": KINDS, **columns})
        reader.create("rows", [str(path)], wanted)
        [loaded] = reader.fill("rows", [str(path)], wanted)
        assert loaded.bad_rows == reading.bad_rows
        assert reader.connection.sql("FROM rows SELECT count(*)").fetchall() == [(len(rows),)]
        return rows, reading.bad_rows


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str | bytes, name: str = "rows.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("i", "12", 12),
        ("i", " -12\t", -12),
        ("i", "+5", 5),
        ("i", "12.0", 12),
        ("i", "9223372036854775807", 2**63 - 1),
        ("i", "2.5", "'2.5' is not a whole number (INT)"),  # DuckDB's cast makes 3 of it.
        ("i", "1_000", "'1_000' is not a whole number (INT)"),
        ("i", "0x1f", "'0x1f' is not a whole number (INT)"),
        ("i", "1e3", "'1e3' is not a whole number (INT)"),
        ("i", "true", "'true' is not a whole number (INT)"),
        ("i", "9223372036854775808", "'9223372036854775808' is too large for 64 bits (INT)"),
        ("f", "2.5", 2.5),
        ("f", ".5", 0.5),
        ("f", "5.", 5.0),
        ("f", "-1e-3", pytest.approx(-0.001)),
        ("f", "16777217", 16777216.0),
        ("f", "1_0.5", "'1_0.5' is not a number (FLOAT)"),
        ("f", "1e400", "'1e400' is too large for 32 bits (FLOAT)"),
        ("f", "1e39", "'1e39' is too large for 32 bits (FLOAT)"),
        ("f", "inf", "'inf' is not a number (FLOAT)"),
        ("f", "-Infinity", "'-Infinity' is not a number (FLOAT)"),
        ("f", "1 2", "'1 2' is not a number (FLOAT)"),
        ("f", "heavy", "'heavy' is not a number (FLOAT)"),
        ("t", " a ", b" a "),
        ("t", "NA", b"NA"),
        *[(c, null, None) for c in "if" for null in ("NA", "N/A", "null", "NULL", "None", "?")],
        *[(c, null, None) for c in "if" for null in ("-", "\\N", "#N/A", "nan", "NaN", " NA ", "")],
    ],
)
def test_value(csv: Callable[..., Path], column: str, text: str, value: Any) -> None:
    fields = {"i": "1", "f": "1", "t": "x"} | {column: text}
    rows, bad = read(csv("i,f,t\n" + ",".join(fields.values()) + "\n1,1,1\n"))
    if isinstance(value, str):
        assert str(bad[0]) == f"  line 2, column '{column}': {value}"
        assert len(rows) == 1
    else:
        assert not bad
        assert rows[0][column] == value


DE = CsvFormat(separator=";", decimal=",", thousands=".")
UNITS = CsvFormat(separator=";", thousands=",", units=["$", "%"])
JSON = '{"i": 1, "f": 1, "t": "a"}\n\nnope\n[1]\n{"i": 1.5}\n'
NO_INT, NO_NUMBER = "is not a whole number (INT)", "is not a number (FLOAT)"


@pytest.mark.parametrize(
    ("name", "form", "content", "values", "bad"),
    [
        pytest.param(
            *("a.csv", CsvFormat(nulls=["-999"]), "i,f,t\n-999,2,x\n1,NA,x\n"),
            [[None, 2.0, b"x"]],
            [f"line 3, column 'f': 'NA' {NO_NUMBER}"],
            id="texts for no value are a setting",
        ),
        pytest.param(
            *("a.csv", DE, "i;f;t\n1.000;1.234,5;a\n1000;,5;b\n1.00;1,5;c\n1;1.5;d\n"),
            [[1000, 1234.5, b"a"], [1000, 0.5, b"b"]],
            [
                f"line 4, column 'i': '1.00' {NO_INT}",
                f"line 5, column 'f': '1.5' {NO_NUMBER}",
            ],
            id="decimal comma and thousands",
        ),
        pytest.param(
            *("a.csv", UNITS, "i;f;t\n$29;29%;$a\n-$1,000; 2.5 % ;b\n$-3;$;c\n4;3$4;d\n"),
            [[29, 29.0, b"$a"], [-1000, 2.5, b"b"]],
            [f"line 4, column 'f': '$' {NO_NUMBER}", f"line 5, column 'f': '3$4' {NO_NUMBER}"],
            id="units beside numbers are left out",
        ),
        pytest.param(
            *("a.csv", CsvFormat(encoding="cp1252"), b"i,f,t\n1,1,\x81\n2,2,\xe9\n"),
            [[2, 2.0, "é".encode()]],
            ["line 2, column 't': '\ufffd' is not cp1252"],
            id="bytes that are none of the encoding",
        ),
        pytest.param(
            *("a.csv", None, 'i,f,t\n1,1,"a\nb"\nx,1,c\n'),
            [[1, 1.0, b"a\nb"]],
            [f"row 2, column 'i': 'x' {NO_INT}"],
            id="fields with line ends make rows of lines",
        ),
        pytest.param(
            *("a.jsonl", None, JSON),
            [[1, 1.0, b"a"]],
            [
                "line 3: 'nope' is no JSON object",
                "line 4: '[1]' is no JSON object",
                f"line 5, column 'i': '1.5' {NO_INT}",
            ],
            id="JSON lines that are none",
        ),
    ],
)
def test_good_and_bad_rows(
    csv: Callable[..., Path],
    name: str,
    form: CsvFormat | None,
    content: str | bytes,
    values: list[list[Any]],
    bad: list[str],
) -> None:
    rows, bad_rows = read(csv(content, name), form)
    assert [[*row.values()] for row in rows] == values
    assert [str(row).strip() for row in bad_rows] == bad


def test_label_has_no_class_na(csv: Callable[..., Path]) -> None:
    rows, bad = read(csv("i,f,t\n1,1,yes\n2,2,NA\n"), label="t", filled={"t"})
    assert [row["t"] for row in rows] == [b"yes"]
    assert str(bad[0]) == "  line 3, column 't': 'NA' counts as empty, but must be filled"


def test_bad_rows_have_file_line_column_value_and_reason(csv: Callable[..., Path]) -> None:
    path = csv(b"t,f,i\nx,1,1\nx,2\nx,y,2.5\nx,3,3\nx,1,2,3\n\xff,1,1\nx,,\n")
    rows, bad = read(path, filled={"i"})
    assert [row["i"] for row in rows] == [1, 3]
    assert "\n".join(map(str, bad)).splitlines() == [
        "  line 3: 2 fields, the header has 3",
        "  line 4, column 'i': '2.5' is not a whole number (INT)",
        "  line 4, column 'f': 'y' is not a number (FLOAT)",
        "  line 6: 4 fields, the header has 3",
        "  line 7, column 't': '?,1,1' is not UTF-8",
        "  line 8, column 'i': is empty, but must be filled",
    ]
    assert bad[1].raw == "x,y,2.5"
    assert bad[0].file == str(path)


@pytest.mark.parametrize(("inside", "ends"), [("\n", "\r\n"), ("\r\n", "\n"), ("\n", "\n")])
def test_a_line_end_in_a_name_is_not_that_of_the_lines(
    csv: Callable[..., Path], inside: str, ends: str
) -> None:
    name = f"a{inside}b"
    path = csv(f'"{name}",f,t{ends}1,1,x{ends}2,2,"y{inside}z"{ends}')
    rows, bad = read(path, kinds={name: "INT", "f": "FLOAT", "t": "BYTES"})
    assert [row[name] for row in rows] == [1, 2]
    assert not bad


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", "mixed"])
def test_line_ends(csv: Callable[..., Path], ends: str) -> None:
    lines = ["i,f,t", '1,1,"a\n\nb"' if ends == "\r\n" else "1,1,a", "2,2,b", ""]
    text = "i,f,t\r\n1,1,a\n2,2,b\r\n" if ends == "mixed" else ends.join(lines)
    rows, bad = read(csv(text))
    assert [row["i"] for row in rows] == [1, 2]
    assert not bad


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-32"])
def test_encodings(csv: Callable[..., Path], encoding: str) -> None:
    path = csv("t,i,f\né,1,1\n".encode(encoding))
    rows, _ = read(path, CsvFormat(encoding=encoding))
    assert rows == [{"i": 1, "f": 1.0, "t": "é".encode()}]


def test_gzip_zstd_json_and_parquet_are_the_same_table(tmp_path: Path) -> None:
    text = b"i,f,t\n1,0.1,a\n,,\n3,2,c\n"
    (tmp_path / "a.csv").write_bytes(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.csv.zst").write_bytes(pa.compress(text, "zstd", asbytes=True))
    lines = b'{"t": "a", "i": 1, "f": 0.1}\n\n{"i": null}\n{"f": 2, "i": "3", "t": "c"}\n'
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    table = pa.table({"f": [0.1, None, 2.0], "i": [1.0, None, 3.0], "t": ["a", "", "c"]})
    pq.write_table(table, tmp_path / "a.parquet")
    read_ones = [read(path) for path in sorted(tmp_path.iterdir())]
    assert len(read_ones) == 6
    assert all(one == read_ones[0] for one in read_ones)


def test_bytes_that_are_no_text_are_in_base64(tmp_path: Path) -> None:
    texts = [b"a", b"\x89PNG\r\n"]
    pq.write_table(pa.table({"i": [1, 2], "f": [0.5, 1.0], "t": texts}), tmp_path / "a.parquet")
    rows, bad = read(tmp_path / "a.parquet")
    assert not bad
    assert [row["t"] for row in rows] == [b"a", base64.b64encode(texts[1])]


def test_nothing_else_can_be_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in.csv", tmp_path / "out.csv"
    for path in (inside, outside):
        path.write_text("i,f,t\n1,1,1\n")
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    url = f"http://127.0.0.1:{server.getsockname()[1]}/x.csv"
    (tmp_path / "own").mkdir()
    connection = connect([str(inside)], str(tmp_path / "own"))
    secret = [1]  # A Python variable, which DuckDB would take for a table.
    for query in (
        f"FROM read_csv('{outside}')",
        f"FROM read_text('{tmp_path}/own/../out.csv')",
        f"FROM '{outside}'",
        f"FROM read_csv('{url}')",
        f"FROM '{url}'",
        f"FROM glob('{tmp_path}/*')",
        f"COPY (SELECT 1) TO '{tmp_path}/written.csv'",
        f"ATTACH '{tmp_path}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "FROM secret",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(query)
    with pytest.raises(TimeoutError):
        server.accept()
    assert secret and not os.path.exists(tmp_path / "written.csv")
    assert connection.execute(f"FROM read_csv('{inside}')").fetchall()
