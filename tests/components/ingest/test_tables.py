"""The first rows of files as one table, which schema inference and proposals look at."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import PipelineStop
from components.ingest.query import sample
from components.ingest.settings import CsvFormat

COMMA = CsvFormat()


def types_of(table):
    return {field.name: str(field.type) for field in table.schema}


def test_types_are_the_narrowest_that_hold_every_value(write):
    path = write("a.csv", "i,f,t,g,e\n1, 2.5 ,007,nan,\n-2,1,x,3,\n")
    table = sample([path], COMMA, 100)
    assert [*types_of(table).values()] == ["int64", "float", "string", "int64", "int64"]
    assert table.to_pydict() == {
        "i": [1, -2], "f": [2.5, 1.0], "t": ["007", "x"], "g": [None, 3], "e": [None, None],
    }  # fmt: skip


def test_a_column_of_several_files_has_the_widest_of_their_types(write, tmp_path):
    first = write("1.csv", "a,b,c\n1,01,1\n")
    second = write("2.csv.gz", "c,b,a\n1.5,x,2\n")
    third = str(tmp_path / "3.parquet")
    pq.write_table(pa.table({"a": [0.5], "b": ["3"], "c": [4]}), third)
    table = sample([first, second, third], COMMA, 100)
    assert table.to_pydict() == {"a": [1.0, 2.0, 0.5], "b": ["01", "x", "3"], "c": [1.0, 1.5, 4.0]}


def test_no_more_rows_are_read_than_asked_for(write):
    files = [write(f"{n}.csv", "a\n" + f"{n}\n" * 10) for n in range(3)]
    assert sample(files, COMMA, 15).to_pydict() == {"a": [0] * 10 + [1] * 5}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty. A header"),
        (b"a,b\n", "has a header, but no rows"),
        (b"a,b,a,\n1,2,3,4\n", "column 'a' is there 2 times; column 4 has no name"),
        (b"a,b\n1\n", "line 2: 1 fields, the header has 2"),
        (b"a,b\n\xff,1\n", "line 2, column 'a': '?,1' is not UTF-8"),
        (b"\xff,b\n1,1\n", "set data.csv.encoding"),
        (b"a;b\n1;2\n", "set data.csv.separator to ';'"),
        (b'a,b\n1,"x\n', "a quotation mark in row 1 is not closed"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(write, content, words):
    path = write("a.csv", content)
    with pytest.raises(PipelineStop) as stop:
        sample([path], COMMA, 9)
    assert str(stop.value).startswith(path)
    assert words in str(stop.value)


def test_other_columns_in_another_file_are_named(write):
    files = [write("1.csv", "a,b\n1,2\n"), write("2.csv", "b,c\n1,2\n")]
    with pytest.raises(PipelineStop, match=r"2\.csv has other .*'c' is not in .*; missing: a\."):
        sample(files, COMMA, 9)
