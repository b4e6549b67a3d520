"""Every file that stops a run, and what it is told."""

import gzip

import pytest

from components.errors import PipelineStop
from components.ingest.reading import read

GOOD = b"id,x,name\n1,1.5,a\n"
WHAT_TO_DO = "Correct or remove them in the file"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        pytest.param(GOOD + b"2,2\n", ["line 3: 2 fields, the header has 3", WHAT_TO_DO], id="few"),
        pytest.param(GOOD + b"2,2,b,c\n", ["line 3: 4 fields, the header has 3"], id="many"),
        pytest.param(
            GOOD + b"2.0,2,b\n",
            ["line 3, column 'id': '2.0' is not a whole number (INT)"],
            id="int",
        ),
        pytest.param(
            GOOD + b"9223372036854775808,2,b\n",
            ["column 'id': '9223372036854775808' is not a whole number"],
            id="int-too-large",
        ),
        pytest.param(
            GOOD + b"2,two,b\n", ["line 3, column 'x': 'two' is not a number (FLOAT)"], id="float"
        ),
        pytest.param(
            GOOD + b"2,1e39,b\n", ["column 'x': '1e39' is too large for 32 bits"], id="infinite"
        ),
        pytest.param(
            GOOD + b"2," + b"9x" * 500 + b",b\n",
            ["column 'x': '" + "9x" * 20 + "…' is not a number"],
            id="long-value",
        ),
        pytest.param(
            GOOD + b"2,2,caf\xe9\n", [r"line 3, column 'name': b'caf\xe9' is not UTF-8"], id="utf8"
        ),
        pytest.param(
            GOOD + b",2,b\n",
            ["line 3, column 'id': is empty, but must be filled"],
            id="empty-label",
        ),
        pytest.param(
            GOOD + b'2,2,"a\nb"\n\n3,x,c\n', ["line 6, column 'x': 'x'"], id="real-line-number"
        ),
        pytest.param(
            GOOD + b'2,2,"lost\n3,3,c\n',
            ["line 3, column 'name': the quotation mark is not closed"],
            id="unclosed-quote",
        ),
        pytest.param(
            GOOD + b"a,2,b\n" * 9,
            ["the first 5 bad rows:", "line 3, column 'id': 'a'", "line 7, column 'id'"],
            id="many-bad-rows",
        ),
        pytest.param(
            GOOD * 1 + b"2,2,b\n" * 300_000 + b"oops,2,b\n",
            ["line 300003, column 'id': 'oops' is not a whole number"],
            id="late",
        ),
        pytest.param(b"", ["is empty. A header with the column names is expected."], id="empty"),
        pytest.param(b"\n\n", ["is empty. A header"], id="blank"),
        pytest.param(
            b"id,x,name\n",
            ["has a header, but no rows. Fill the file or move it"],
            id="header-only",
        ),
        pytest.param(b"id,x,name\n\n\n", ["has a header, but no rows"], id="header-and-blanks"),
        pytest.param(b"id,x,name", ["has a header, but no rows"], id="header-only-no-newline"),
        pytest.param(
            b"id,name\n1,a\n", ["does not fit the schema: missing: x."], id="missing-column"
        ),
        pytest.param(
            b"id,x,nane\n1,1,a\n",
            ["column 'nane' is not in the schema (did you mean 'name'?); missing: name"],
            id="misspelt-column",
        ),
        pytest.param(
            b"id,x,name,extra\n1,1,a,b\n",
            ["column 'extra' is not in the schema. "],
            id="new-column",
        ),
        pytest.param(
            b"id,x,name,x\n1,1,a,1\n", ["column 'x' is there 2 times"], id="duplicate-column"
        ),
        pytest.param(
            b"1,1,a\n2,2,b\n",
            ["column '1' is there 2 times", "missing: id, name, x"],
            id="no-header",
        ),
        pytest.param(b"\x00\xff" * 99_999, ["does not fit the schema"], id="binary"),
    ],
)
def test_a_bad_file_is_explained(write, make_settings, content, parts):
    path = write("a.csv", content)
    with pytest.raises(PipelineStop) as stop:
        for _ in read(path, make_settings()):
            pass
    assert str(stop.value).startswith(path)
    for part in parts:
        assert part in str(stop.value)
    assert len(str(stop.value)) < 1500


def test_five_bad_rows_are_shown_and_no_more(write, make_settings):
    path = write("a.csv", GOOD + b"a,2,b\n" * 9)
    with pytest.raises(PipelineStop) as stop:
        [*read(path, make_settings())]
    assert str(stop.value).count("  line ") == 5


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        (
            "cut.csv.gz",
            gzip.compress(GOOD * 9, mtime=0)[:-10],
            ["can't be read: Compressed file ended", "whole"],
        ),
        ("plain.csv.gz", GOOD, ["can't be read: Not a gzipped file", "really gzip"]),
        (
            "zeros.csv.gz",
            gzip.compress(GOOD, mtime=0) + b"\0" * 9 + b"x",
            ["can't be read: Not a gzipped"],
        ),
    ],
)
def test_a_broken_gzip_file_is_explained(tmp_path, make_settings, name, content, parts):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PipelineStop) as stop:
        [*read(str(path), make_settings())]
    for part in [str(path), *parts]:
        assert part in str(stop.value)


def test_a_truncated_file_with_a_bad_row_is_explained_by_either(tmp_path, make_settings):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"id,x,name\n" + b"1,x,a\n" + b"2,2,b\n" * 500_000)[:-10])
    with pytest.raises(PipelineStop, match=r"line 2, column 'x': 'x' is|Compressed file ended"):
        [*read(str(path), make_settings())]


def test_a_file_that_is_gone_is_explained(tmp_path, make_settings):
    with pytest.raises(PipelineStop, match=r"gone\.csv has vanished since the run began"):
        [*read(str(tmp_path / "gone.csv"), make_settings())]


def test_required_columns_and_nan_labels(write, make_settings):
    path = write("a.csv", b"id,x,name\n1,1,\n2,nan,b\n")
    with pytest.raises(PipelineStop) as stop:
        [*read(path, make_settings(required=["name"], label="x"))]
    assert "line 2, column 'name': is empty, but must be filled" in str(stop.value)
    assert "line 3, column 'x': 'nan' counts as empty, but must be filled" in str(stop.value)


@pytest.mark.prove
def test_a_quotation_mark_never_closed_in_a_large_file_does_not_fill_the_memory(
    write, make_settings
):
    path = write("a.csv", GOOD * 1 + b'2,2,"lost\n' + b"3,3,c\n" * 13_000_000)
    with pytest.raises(PipelineStop) as stop:
        [*read(path, make_settings())]
    assert "line 3 and after: field larger than field limit (67108864); is a quotation" in str(
        stop.value
    )
