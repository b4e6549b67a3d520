"""Bad rows set aside: which, with what reasons, how many are too many, and what stays the same."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import PipelineStop

QUARANTINE = {"action": "quarantine", "at_most": 0.5}
SPLITS = ("train", "eval", "test")
BY_TIME = {"by": "time", "time": "id", "train": 0.6, "eval": 0.2, "test": 0.2}
LARGE = '{"id": "9223372036854775808", "x": "2.0", "name": "b"}'
HEADER = "id,x,name\n"


def good_lines(*ids):
    return "".join(f"{i},{i / 2},n{i % 40}\n" for i in ids)


def test_the_split_of_good_rows_does_not_depend_on_bad_ones(write, ingest, make_settings):
    write("1.csv", HEADER + good_lines(*range(200)))
    # The bad rows have good times, which must not move the cuts.
    bad = "".join(f"{i},oops,a\n" for i in range(150, 190))
    write("2.csv", HEADER + bad + good_lines(*range(200)) + bad)
    fails = ingest(make_settings(split=BY_TIME), "1.csv")
    wanted = make_settings(bad_rows=QUARANTINE, split=BY_TIME)
    clean, dirty = (ingest(wanted, name) for name in ("1.csv", "2.csv"))
    for name in SPLITS:
        assert fails.rows(name) == clean.rows(name) == dirty.rows(name)
    none = {"rows": 0, "of": 200, "reasons": {}}
    assert clean.counts() == fails.counts() | {"quarantined": none}
    assert not Path(clean.artifact.uri, "quarantine").exists()
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
        (last, 2, [f"column 'id': '9223372036854775808' {large}"], LARGE),
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
        "  3 x column 'id' is not a whole number (INT); first: "
        f"{path}, line 98, column 'id': 'x' is not a whole number (INT)\n"
        "  1 x another number of fields than the header; first: "
        f"{path}, line 101, 2 fields, the header has 3\n"
    )
    folder = tmp_path / "step" / "quarantine" / "7"
    assert f"All of them, with the reasons: {folder}/*.jsonl" in message
    assert len((folder / "rows-00000.jsonl").read_text().splitlines()) == 4


def test_a_file_with_far_too_many_bad_rows_is_not_read_to_its_end(
    write, drive, execute, make_settings
):
    path = write("a.csv", HEADER + "x,1,a\n" * 400_000)
    with pytest.raises(PipelineStop) as stop:
        execute(drive(make_settings(bad_rows={"action": "quarantine", "at_most": 1})))
    found = re.search(r"and ([0-9,]+) more", str(stop.value))
    assert str(stop.value).startswith(f"{path}: bad rows:\n  row 1, column 'id': 'x' is not a")
    assert 250_000 < int(found[1].replace(",", "")) + 10 < 300_000
