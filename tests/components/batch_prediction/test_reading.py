import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.batch_prediction import inputs, reading
from components.batch_prediction.inputs import Wanted
from components.batch_prediction.reading import Block
from components.errors import PipelineStop
from tests.components.batch_prediction import samples

_SIGNATURE = {
    "inputs": {
        "a": {"type": "INT", "required": False},
        "b": {"type": "BYTES", "required": False},
    },
    "ignored": [],
}


def read(path: Path) -> list[Block]:
    files = inputs.find(str(path), "elsewhere")
    items, _ = inputs.plan(files, Wanted(_SIGNATURE, None, ()))
    return [block for item in items for block in reading.read(item)]


def numbered(blocks: list[Block]) -> dict[int, object]:
    """What each row is, by its number: its value of `a`, or the text of a malformed one."""
    found: dict[int, object] = {}
    for block in blocks:
        last = block.first + inputs.BLOCK_ROWS - 1
        values = block.rows["a"].to_pylist() if len(block.rows) else []
        own = dict(zip(block.numbers.tolist(), values, strict=True))
        own |= {row.number: row.text for row in block.malformed}
        assert own and block.first <= min(own) and max(own) <= last
        assert not {*own} & {*found}
        found |= own
    return found


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    good=st.lists(st.booleans(), max_size=40),
    rows=st.integers(1, 12),
    size=st.integers(30, 200),
    blank=st.sets(st.integers(0, 40)),
)
def test_every_row_of_csv_has_its_number_and_is_in_its_block(
    tmp_path, monkeypatch, good, rows, size, blank
):
    samples.set_block(monkeypatch, rows)
    monkeypatch.setattr(reading, "_BYTES", size)
    texts = [f"{n},x" if is_good else str(n) for n, is_good in enumerate(good, 1)]
    lines = "".join(f"{text}\n" + "\n" * (n in blank) for n, text in enumerate(texts))
    path = tmp_path / "rows.csv"
    path.write_text(f"a,b\n{lines}")
    expected = {n: str(n).encode() if g else str(n) for n, g in enumerate(good, 1)}
    assert numbered(read(path)) == expected


def test_quoted_newlines_in_csv_do_not_end_a_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"x\ny"\n2\n3,"z"\n"4\n",w\n')
    (block,) = read(path)
    assert block.rows.to_pylist() == [
        {"a": b"1", "b": b"x\ny"},
        {"a": b"3", "b": b"z"},
        {"a": b"4\n", "b": b"w"},
    ]
    assert block.numbers.tolist() == [1, 3, 4]
    assert block.malformed == [(2, "2", "it has 1 fields, and the header has 2")]


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "\n\na,b\r\n", "\ufeffa,b\n"])
def test_a_header_without_rows_has_no_rows(tmp_path, text):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    assert read(path) == []


@pytest.mark.parametrize("ending", ['3,"z\n4,w\n', '3,w\n"4,x\n5,y\n', '3,w\n4,x,"y\n5,z\n'])
def test_a_quotation_mark_that_is_not_closed_stops(tmp_path, ending):
    path = tmp_path / "rows.csv"
    path.write_text(f"a,b\n1,x\n{ending}")
    with pytest.raises(PipelineStop, match=r"rows\.csv can't be read: the last quotation mark"):
        read(path)


def test_a_row_longer_than_what_is_read_at_a_time_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_BYTES", 100)
    path = tmp_path / "rows.csv"
    path.write_text(f'a,b\n1,"{"x" * 1000}"\n2,y\n')
    with pytest.raises(PipelineStop, match=r"rows\.csv can't be read: .*straddl"):
        read(path)


def test_a_gzip_that_is_cut_off_stops(tmp_path):
    path = tmp_path / "rows.csv.gz"
    whole = gzip.compress("".join(f"{n},{n * n}\n" for n in range(50_000)).encode())
    path.write_bytes(gzip.compress(b"a,b\n") + whole[: len(whole) // 2])
    with pytest.raises(PipelineStop, match=r"rows\.csv\.gz can't be read"):
        read(path)


@pytest.mark.parametrize(("group", "block"), [(3, 10), (10, 3), (7, 7), (100, 100), (1, 4)])
def test_parquet_is_read_in_blocks_over_small_and_large_row_groups(
    tmp_path, monkeypatch, group, block
):
    samples.set_block(monkeypatch, block)
    path = tmp_path / "rows.parquet"
    table = pa.table({"b": [f"t{n}" for n in range(1, 41)], "a": range(1, 41), "c": [1.5] * 40})
    pq.write_table(table, path, row_group_size=group)
    blocks = read(path)
    assert numbered(blocks) == {n: n for n in range(1, 41)}
    assert all(found.rows.column_names == ["a", "b"] for found in blocks)
    assert max(len(found.rows) for found in blocks) <= block
    files = inputs.find(str(path), "elsewhere")
    items, _ = inputs.plan(files, Wanted(_SIGNATURE, None, ()))
    starts = [start for item in items for start in reading.block_starts(item)]
    assert starts == [found.first for found in blocks]
    assert len(items) == -(-40 // (group * -(-block // group)))


def test_damaged_parquet_data_stops(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table({"a": range(5000), "b": [f"{n}" for n in range(5000)]})
    pq.write_table(table, path, use_dictionary=False, compression="none")
    damaged = bytearray(path.read_bytes())
    damaged[4:400] = b"\xff" * 396
    path.write_bytes(damaged)
    with pytest.raises(PipelineStop, match=r"rows\.parquet can't be read"):
        read(path)
