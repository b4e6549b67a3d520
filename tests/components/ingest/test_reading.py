import csv
import gzip
import io
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import PipelineStop
from components.ingest.reading import read
from components.ingest.settings import IngestSettings

HEADER = "id,x,name\n"


def rows_of(path, ingest_settings):
    return [row for batch in read(path, ingest_settings) for row in batch.to_pylist()]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_types_come_from_the_settings(write, make_settings, name):
    path = write(name, HEADER + "7,1,007\n-9223372036854775808, 2.5 ,'\n")
    assert rows_of(path, make_settings()) == [
        {"id": 7, "name": b"007", "x": 1.0},
        {"id": -(2**63), "name": b"'", "x": 2.5},
    ]


def test_types_do_not_change_within_a_long_file(write, make_settings):
    whole = "".join(f"{i},{i},{i}\n" for i in range(200_000))
    path = write("a.csv", HEADER + whole + "1,0.5,ß\n")
    batches = [*read(path, make_settings())]
    assert len(batches) > 1
    assert {str(batch.schema) for batch in batches} == {"id: int64\nname: binary\nx: float"}
    assert sum(map(len, batches)) == 200_001


def test_only_an_empty_field_and_nan_are_missing(write, make_settings):
    path = write("a.csv", HEADER + '1,,\n2,nan,""\n3,NaN,NA\n4,-nan,null\n')
    rows = rows_of(path, make_settings())
    assert [row["x"] for row in rows] == [None] * 4
    assert [row["name"] for row in rows] == [None, None, b"NA", b"null"]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffid,x,name\n1,2,a\n",
        '"id","x","name"\r\n1,2,a',
        "\n\nid,x,name\r1,2,a\r",
        "name,id,x\na,1,2\n\n",
        'x,name,id\n"2","a","1"\n',
    ],
)
def test_byte_order_mark_line_ends_quotes_and_column_order_do_not_matter(
    write, make_settings, content
):
    assert rows_of(write("a.csv", content), make_settings()) == [{"id": 1, "name": b"a", "x": 2.0}]


def test_gzip_files_may_have_several_members(write, make_settings, tmp_path):
    path = write("a.csv.gz", HEADER + "1,1,a\n")
    with open(path, "ab") as file:
        file.write(gzip.compress(b"2,2,b\n"))
    assert [row["id"] for row in rows_of(path, make_settings())] == [1, 2]


def test_a_row_longer_than_the_block_makes_the_block_grow(write, make_settings):
    long = "x" * (3 << 20)
    lines = [f"{i},1,short name {i}\n" for i in range(100_000)]
    lines[70_000] = f"70000,1,{long}\n"
    rows = rows_of(write("a.csv", HEADER + "".join(lines)), make_settings())
    assert [row["id"] for row in rows] == [*range(100_000)]
    assert rows[70_000]["name"] == long.encode()


def float32(number):
    return struct.unpack("f", struct.pack("f", number))[0]


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', '""', "a\nb", "\r\n", ",", " ", "'", "\\", "\ufeff", "\x00", "x" * 500]
)
row_lists = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(width=32, allow_nan=False), texts),
    min_size=1,
    max_size=30,
)


quiet = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Python's writer leaves a lone \r unquoted when lines end in \n and quoting is minimal.
dialects = st.sampled_from(
    [("\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_NONNUMERIC), ("\r\n", csv.QUOTE_MINIMAL)]
)


@quiet
@given(rows=row_lists, dialect=dialects)
def test_reads_what_python_writes(rows, dialect, write, make_settings):
    rows = [(i, x if abs(x) != float("inf") else 0.0, name) for i, x, name in rows]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=dialect[0], quoting=dialect[1])
    writer.writerows([("name", "x", "id"), *((name, x, i) for i, x, name in rows)])
    expected = [{"id": i, "name": n.encode() or None, "x": float32(x)} for i, x, n in rows]
    assert rows_of(write("a.csv", text.getvalue()), make_settings()) == expected


lines = st.sampled_from(
    ["a,b\n", "a,\r\n", '"a",b\r', 'a,"b\r\n\nc"\n', '"a""b", c\n', "\n", '"a,",""\n', 'a"b,c"\n']
)
broken = st.sampled_from(["a\n", ",b\n", "a,b,c\n", 'a,"b\n', '"', ",", " \n", "a,b", '"a"b",c\n'])


@quiet
@given(body=st.lists(lines | lines | lines | broken, max_size=8).map("".join))
def test_splits_any_text_as_python_does_or_stops(body, write):
    split = {"by": "row", "train": 0.6, "eval": 0.2, "test": 0.2}
    ab = IngestSettings(columns={"a": "BYTES", "b": "BYTES"}, label="a", split=split)
    expected = [row for row in csv.reader(io.StringIO(body, newline="")) if row]
    try:
        found = rows_of(write("a.csv", "a,b\n" + body), ab)
    except PipelineStop as stop:
        good = expected and all(len(row) == 2 and row[0] for row in expected)
        assert not good or "quotation mark is not closed" in str(stop)
    else:
        assert [[r["a"].decode(), (r["b"] or b"").decode()] for r in found] == expected
