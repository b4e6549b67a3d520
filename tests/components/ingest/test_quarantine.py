"""Bad rows set aside: which, with what reasons, how many are too many, and what stays the same."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import PipelineStop
from components.ingest import reading, tolerant
from components.ingest.reading import read
from components.ingest.settings import IngestSettings

QUARANTINE = {"action": "quarantine", "at_most": 0.5}
SPLITS = ("train", "eval", "test")
BY_TIME = {"by": "time", "time": "id", "train": 0.6, "eval": 0.2, "test": 0.2}
HEADER = "id,x,name\n"


def good_lines(*ids):
    return "".join(f"{i},{i / 2},n{i % 40}\n" for i in ids)


def bad_of(path, ingest_settings):
    """The good rows' ids, and the bad rows."""
    bad = []
    rows = [r for b in read(path, ingest_settings, set_aside=bad.append) for r in b.to_pylist()]
    return [row["id"] for row in rows], bad


@pytest.mark.parametrize(
    ("row", "problems"),
    [
        (b"x,1,a", [": 'x' is not a whole number (INT)"]),
        (b"1.0,1,a", [": '1.0' is not a whole number (INT)"]),
        (b"9223372036854775808,1,a", [": '9223372036854775808' is not a whole number (INT)"]),
        (b"1,two,a", [": 'two' is not a number (FLOAT)"]),
        (b"1,1e39,a", [": '1e39' is too large for 32 bits (FLOAT)"]),
        (b"1,-inf,a", [": '-inf' is too large for 32 bits (FLOAT)"]),
        (b",1,a", [": is empty, but must be filled"]),
        (b"1,1,", [": is empty, but must be filled"]),
        (b"x,two,a", [": 'x' is not a whole number (INT)", ": 'two' is not a number (FLOAT)"]),
        (b"1,1,caf\xe9", [r": b'caf\xe9' is not UTF-8"]),
        (b"1,1", [": 2 fields, the header has 3"]),
        (b"1,1,a,b", [": 4 fields, the header has 3"]),
        (b"1,caf\xe9", [": 2 fields, the header has 3"]),
    ],
)
def test_a_bad_row_is_set_aside_with_its_line_and_reasons(write, make_settings, row, problems):
    path = write("a.csv", b'id,x,name\n\n1,1,"a\nb"\n' + row + b"\n2,2,b\n")
    ids, bad = bad_of(path, make_settings(bad_rows=QUARANTINE, required=["name"]))
    assert ids == [1, 2]
    ((place, number, found, raw),) = bad
    assert (place, number) == ("line", 5)
    assert [str(problem)[-len(p) :] for problem, p in zip(found, problems, strict=True)] == problems
    assert raw == row.decode(errors="backslashreplace")


def test_the_words_are_those_of_a_run_that_fails(write, make_settings):
    path = write("a.csv", HEADER + good_lines(*range(9)) + "x,1,a\n1,y,b\n1,2\n" + good_lines(1))
    _, bad = bad_of(path, make_settings(bad_rows=QUARANTINE))
    with pytest.raises(PipelineStop) as stop:
        [*read(path, make_settings())]
    assert str(stop.value).splitlines()[1:4] == [str(row) for row in bad]


def test_nothing_of_good_files_changes(write, ingest, make_settings):
    write("a.csv", HEADER + good_lines(*range(300)) + "300,,\n")
    fails = ingest(make_settings())
    sets_aside = ingest(make_settings(bad_rows=QUARANTINE))
    for split in SPLITS:
        assert fails.rows(split) == sets_aside.rows(split)
    assert sets_aside.counts() == fails.counts() | {
        "quarantined": {"rows": 0, "of": 301, "reasons": {}}
    }
    assert not Path(sets_aside.artifact.uri, "quarantine").exists()


@pytest.mark.parametrize("split", [{}, {"split": BY_TIME}], ids=["by row", "by time"])
def test_the_split_of_good_rows_does_not_depend_on_bad_ones(write, ingest, make_settings, split):
    write("1.csv", HEADER + good_lines(*range(200)))
    # The bad rows have good times, which must not move the cuts.
    bad = "".join(f"{i},oops,a\n" for i in range(150, 190))
    write("2.csv", HEADER + bad + good_lines(*range(200)) + bad)
    wanted = make_settings(bad_rows=QUARANTINE, **split)
    clean, dirty = (ingest(wanted, name) for name in ("1.csv", "2.csv"))
    for name in SPLITS:
        assert clean.rows(name) == dirty.rows(name)
    assert dirty.artifact.get_int_custom_property("rows_quarantined") == 80


def test_the_lists_and_counts_lie_beside_the_examples(tmp_path, write, ingest, make_settings):
    first = write("1.csv", HEADER + good_lines(*range(100)) + "x,1,a\n1,y,b\n,z,c\n")
    write("2.csv.gz", HEADER + good_lines(*range(100, 200)))
    last = str(tmp_path / "data" / "3.parquet")
    table = {"id": pa.array([7, 2**63], pa.uint64()), "x": [1.0, 2.0], "name": ["a", "b"]}
    pq.write_table(pa.table(table), last)
    made = ingest(make_settings(bad_rows=QUARANTINE))
    assert len(made.all_rows()) == 201
    lists = sorted(Path(made.artifact.uri, "quarantine").iterdir())
    assert [path.name for path in lists] == ["rows-00000.jsonl", "rows-00001.jsonl"]
    found = [json.loads(line) for path in lists for line in path.read_text().splitlines()]
    no_int, empty = "is not a whole number (INT)", "is empty, but must be filled"
    no_number, large = "is not a number (FLOAT)", "is too large for 64 bits (INT)"
    assert [
        (r["file"], r.get("line", r.get("row")), r["reasons"], r.get("raw")) for r in found
    ] == [
        (first, 102, [f"column 'id': 'x' {no_int}"], "x,1,a"),
        (first, 103, [f"column 'x': 'y' {no_number}"], "1,y,b"),
        (first, 104, [f"column 'id': {empty}", f"column 'x': 'z' {no_number}"], ",z,c"),
        (last, 2, [f"column 'id': 9223372036854775808 {large}"], None),
    ]
    assert made.counts()["quarantined"] == {
        "rows": 4,
        "of": 205,
        "reasons": {
            f"column 'x' {no_number}": 2,
            f"column 'id' {no_int}": 1,
            f"column 'id' {empty}": 1,
            f"column 'id' {large}": 1,
        },
    }


def test_too_many_bad_rows_stop_the_run_and_leave_their_list(
    tmp_path, write, drive, execute, make_settings
):
    path = write("a.csv", HEADER + good_lines(*range(96)) + "x,1,a\n" * 3 + "1,2\n")
    few = {"action": "quarantine", "at_most": 0.04}
    assert execute(drive(make_settings(bad_rows=few))).counts()["quarantined"]["rows"] == 4
    with pytest.raises(PipelineStop) as stop:
        execute(drive(make_settings(bad_rows=few | {"at_most": 0.039})), uri="step/examples/7")
    message = str(stop.value)
    assert message.startswith(
        "4 of 100 rows are bad (4.00%), and data.bad_rows.at_most allows 3.90%:\n"
        "  3 x column 'id' is not a whole number (INT)\n"
        "  1 x another number of fields than the header\nFor example:\n"
        f"  {path}, line 98, column 'id': 'x' is not a whole number (INT)\n"
    )
    # One of each reason, and then a second one.
    assert f"\n  {path}, line 101: 2 fields, the header has 3\n" in message
    assert f"\n  {path}, line 99, column 'id': 'x' is not" in message
    assert message.count(path) == 3
    folder = tmp_path / "step" / "quarantine" / "7"
    assert f"All of them, with the reasons: {folder}/*.jsonl" in message
    assert len((folder / "rows-00000.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", HEADER + 'x,1,a\n1,1,"b\n2,2,c\n', "line 3, column 'name': the quota"),
        ("a.csv", HEADER + 'x,1,a\n1,"1,b\n2,2,c\n', "line 3"),
        ("a.csv", HEADER, "has a header, but no rows"),
        ("a.csv", "id,name\n1,a\n", "missing: x"),
        ("a.parquet", "x,1,a\n", "whole and really Parquet"),
    ],
)  # fmt: skip
def test_a_defect_of_the_whole_file_stops_all_the_same(write, make_settings, name, content, words):
    path = write(name, content)
    with pytest.raises(PipelineStop) as stop:
        bad_of(path, make_settings(bad_rows=QUARANTINE))
    assert path in str(stop.value)
    assert words in str(stop.value)


@pytest.mark.parametrize("content", [b"", b"no gzip", None])
def test_a_broken_gzip_file_stops_all_the_same(tmp_path, write, make_settings, content):
    path = Path(write("a.csv.gz", HEADER + "x,1,a\n" + good_lines(*range(9999))))
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    with pytest.raises(PipelineStop, match=r"a\.csv\.gz (can't be read|is empty)"):
        bad_of(str(path), make_settings(bad_rows=QUARANTINE))


def test_rows_longer_than_a_block_and_bad_ones_between_blocks(write, make_settings, monkeypatch):
    monkeypatch.setattr(reading, "_BLOCKS", (1 << 10, 1 << 16))
    monkeypatch.setattr(tolerant, "_BLOCKS", (1 << 10, 1 << 16))
    lines = good_lines(*range(1000)).splitlines(keepends=True)
    lines[300] = f"300,1,{'y' * 5000}\n"
    for number in (0, 1, 299, 500, 501, 502, 999):
        lines[number] = "short,1\n" if number % 2 else f"{number},long,a\n"
    ids, bad = bad_of(write("a.csv", HEADER + "".join(lines)), make_settings(bad_rows=QUARANTINE))
    assert [row.number for row in bad] == [2, 3, 301, 502, 503, 504, 1001]
    assert ids == sorted({*range(1000)} - {row.number - 2 for row in bad})


def test_a_file_of_nothing_but_bad_rows(write, make_settings):
    path = write("a.csv", HEADER + "1\n2\nx,1,a\n3\n")
    assert bad_of(path, make_settings(bad_rows=QUARANTINE))[0] == []
    path = write("b.csv", HEADER + "1\n2\n")
    ids, bad = bad_of(path, make_settings(bad_rows=QUARANTINE))
    assert (ids, [row.number for row in bad]) == ([], [2, 3])


values = st.sampled_from(
    ["1", "-7", "x", "", " 2 ", "1.5", "nan", "1e39", "0x1F", '"a,b"', '"a\nb"', "é"]
)
rows = st.lists(values, min_size=1, max_size=4).map(",".join).filter(bool)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.lists(rows, min_size=1, max_size=8))
def test_good_is_what_a_file_of_that_row_alone_does_not_fail_for(body, write):
    split = {"by": "row", "train": 0.6, "eval": 0.2, "test": 0.2}
    wanted = IngestSettings(
        columns={"a": "INT", "b": "FLOAT", "c": "BYTES"},
        label="b",
        split=split,
        bad_rows=QUARANTINE,
    )
    expected = []
    for row in body:
        try:
            expected += [
                r for b in read(write("1.csv", f"a,b,c\n{row}\n"), wanted) for r in b.to_pylist()
            ]
        except PipelineStop:
            continue
    bad = []
    path = write("a.csv", "a,b,c\n" + "".join(f"{row}\n" for row in body))
    batches = [*read(path, wanted, set_aside=bad.append)]
    assert [row for batch in batches for row in batch.to_pylist()] == expected
    parsed = [next(csv.reader(io.StringIO(row.raw))) for row in bad]
    assert len(parsed) + len(expected) == len(body)
    assert all(row.problems for row in bad)
