"""Parquet: the same examples as the same table's CSV, and a clear word about every other file."""

import csv
import datetime as dt
import io
from decimal import Decimal

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import PipelineStop
from components.ingest import parquet
from components.ingest.reading import read

SPLITS = ("train", "eval", "test")
BY_TIME = {"by": "time", "time": "day", "train": 0.6, "eval": 0.2, "test": 0.2}


@pytest.fixture
def save(tmp_path):
    """Writes a table as Parquet below the data folder; returns its path."""

    def write_table(name, table, **options):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
        return str(path)

    return write_table


def rows_of(path, ingest_settings):
    return [row for batch in read(path, ingest_settings) for row in batch.to_pylist()]


def mixed_table(count):
    """One column of each type that pandas writes to CSV as Parquet's types are read here."""
    chance = np.random.default_rng(0)
    whole = pd.Series(chance.integers(-(2**40), 2**40, count), dtype="Int64")
    when = pd.Timestamp("2020-01-01 10:00:01") + pd.to_timedelta(
        chance.integers(0, 10**7, count), "s"
    )
    frame = pd.DataFrame(
        {
            "whole": whole.mask(chance.random(count) < 0.1),
            "small": chance.integers(0, 255, count, dtype=np.uint8),
            "real": np.where(chance.random(count) < 0.1, np.nan, chance.normal(size=count)),
            "single": chance.normal(size=count).astype(np.float32),
            "exact": [Decimal(int(n)) / 100 for n in chance.integers(-10_000, 10_000, count)],
            "text": pd.Series([f'ü"{n},\n' if n % 5 else None for n in range(count)]),
            "group": pd.Categorical(chance.choice(["a", "b", "c d"], count)),
            "day": [
                dt.date(2020, 1, 1) + dt.timedelta(int(n)) for n in chance.integers(0, 99, count)
            ],
            "when": when,
            "there": when.tz_localize("UTC").tz_convert("Europe/Berlin"),
            "clock": [dt.time(n % 24, n % 60, 1) for n in range(count)],
        }
    )
    kinds = dict.fromkeys(frame.columns, "BYTES") | {"whole": "INT", "small": "INT"}
    return frame, kinds | dict.fromkeys(("real", "single", "exact"), "FLOAT")


@pytest.mark.parametrize("split", [None, {"split": BY_TIME}], ids=["by row", "by time"])
def test_csv_and_parquet_of_a_table_make_the_same_examples_in_the_same_splits(
    tmp_path, ingest, make_settings, split
):
    frame, kinds = mixed_table(500)
    (tmp_path / "data").mkdir()
    frame.to_csv(tmp_path / "data" / "1.csv", index=False)
    frame.to_parquet(tmp_path / "data" / "2.parquet")
    wanted = make_settings(columns=kinds, label="small", **(split or {}))
    first, second = (ingest(wanted, name) for name in ("1.csv", "2.parquet"))
    assert len(first.all_rows()) == 500
    for name in SPLITS:
        assert first.rows(name) == second.rows(name)


def test_csv_and_parquet_in_one_folder_are_read_file_by_file(
    tmp_path, save, write, ingest, make_settings
):
    write("1.csv", "id,x,name\n" + "".join(f"{i},0.5,a\n" for i in range(50)))
    save("2.parquet", {"x": [1] * 50, "name": ["b"] * 50, "id": list(range(50, 100))})
    made = ingest(make_settings())
    assert sorted(row["id"] for row in made.all_rows()) == [*range(100)]
    assert {row["x"] for row in made.all_rows() if row["name"] == b"b"} == {1.0}


doubles = st.floats(allow_nan=False, allow_infinity=False, width=64)
half_way = st.floats(width=32, allow_nan=False, allow_infinity=False).map(
    lambda x: (float(np.float32(x)) + float(np.nextafter(np.float32(x), np.float32(9)))) / 2
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists((doubles | half_way).filter(lambda x: abs(x) < 3e38), min_size=1))
def test_a_double_becomes_the_float_that_its_text_in_csv_becomes(
    numbers, save, write, make_settings
):
    text = io.StringIO()
    csv.writer(text).writerows([("id", "x", "name"), *((1, repr(x), "a") for x in numbers)])
    table = {"id": [1] * len(numbers), "x": numbers, "name": ["a"] * len(numbers)}
    from_csv = rows_of(write("a.csv", text.getvalue()), make_settings())
    assert repr(rows_of(save("a.parquet", table), make_settings())) == repr(from_csv)


@pytest.mark.parametrize(
    ("kind", "column", "expected"),
    [
        ("INT", pa.array([True, False, None]), [1, 0, None]),
        ("INT", pa.array([1, 2, None], pa.uint64()), [1, 2, None]),
        ("INT", pa.array([None, None, None]), [None, None, None]),
        ("FLOAT", pa.array([None, 0.5, np.nan], pa.float64()), [None, 0.5, None]),
        ("FLOAT", pa.array(np.array([0.5, 2, np.nan], np.float16)), [0.5, 2.0, None]),
        ("FLOAT", pa.array([16_777_217, None, 3]), [16_777_216.0, None, 3.0]),
        ("FLOAT", pa.array([True, False, None]), [1.0, 0.0, None]),
        ("FLOAT", pa.array([Decimal("1.50"), None, Decimal("-2")]), [1.5, None, -2.0]),
        ("BYTES", pa.array(["a", "", None]), [b"a", None, None]),
        ("BYTES", pa.array(["a", "ü", None], pa.large_string()), [b"a", "ü".encode(), None]),
        ("BYTES", pa.array([b"a", b"", None]), [b"a", None, None]),
        ("BYTES", pa.array(["b", "", None]).dictionary_encode(), [b"b", None, None]),
        ("INT", pa.array([7, None, 7]).dictionary_encode(), [7, None, 7]),
        (
            "BYTES",
            pa.array([dt.date(2020, 2, 29), None, dt.date(1960, 1, 1)], pa.date64()),
            [b"2020-02-29", None, b"1960-01-01"],
        ),
        (
            "BYTES",
            pa.array([0, 1_500, None], pa.timestamp("ms")),
            [b"1970-01-01 00:00:00", b"1970-01-01 00:00:01.500000", None],
        ),
        (
            "BYTES",
            pa.array([1, 1_000, None], pa.timestamp("ns", "UTC")),
            [
                b"1970-01-01 00:00:00.000000001+00:00",
                b"1970-01-01 00:00:00.000001+00:00",
                None,
            ],
        ),
        (
            "BYTES",
            pa.array([0, 60, None], pa.timestamp("s", "-03:30")),
            [b"1969-12-31 20:30:00-03:30", b"1969-12-31 20:31:00-03:30", None],
        ),
        (
            "BYTES",
            pa.array([0, 1_500, None], pa.time32("ms")),
            [b"00:00:00", b"00:00:01.500000", None],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_every_type_has_its_value(save, make_settings, kind, column, expected):
    path = save("a.parquet", {"id": [1, 2, 3], "v": column})
    wanted = make_settings(columns={"id": "INT", "v": kind})
    assert [row["v"] for row in rows_of(path, wanted)] == expected


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"id": [1.0], "x": ["a"], "name": [1]},
            [
                "does not fit the schema: column 'id' is double in the file and INT in the schema",
                "column 'x' is string in the file and FLOAT",
                "column 'name' is int64 in the file and BYTES",
                ".astype('Int64') keeps them whole",
            ],
        ),
        (
            {"id": [1], "x": [[1.0]], "name": [{"a": 1}]},
            ["'x' (list<element: double>), 'name' (struct<a: int64>): a column must hold one"],
        ),
        ({"id": [1], "nane": ["a"]}, ["(did you mean 'name'?); missing: name, x"]),
        ({"id": [1], "x": [1.0], "name": [b"\xff"]}, [r"row 1, column 'name': b'\xff' is not UTF"]),
        ({"id": [None], "x": [1.0], "name": ["a"]}, ["row 1, column 'id': is empty, but must be"]),
        ({"id": [1], "x": [1e39], "name": ["a"]}, ["row 1, column 'x': 1e+39 is too large for 32"]),
        (
            {"id": pa.array([1, 2**63], pa.uint64()), "x": [1.0, 2.0], "name": ["a", "b"]},
            ["bad rows:\n  row 2, column 'id': 9223372036854775808 is too large for 64 bits"],
        ),
        (
            {"id": pa.nulls(9, pa.int64()), "x": [1.0] * 9, "name": ["a"] * 9},
            ["the first 5 bad rows:", "row 5,"],
        ),
        ({"id": pa.array([], pa.int64()), "x": pa.nulls(0), "name": pa.nulls(0)}, ["but no rows"]),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_explained(save, make_settings, table, words):
    path = save("a.parquet", table)
    with pytest.raises(PipelineStop) as stop:
        rows_of(path, make_settings())
    assert str(stop.value).startswith(path)
    for word in words:
        assert word in str(stop.value)


def test_columns_there_twice_are_named(save, make_settings):
    names = ["id", "x", "name", "x"]
    table = pa.table([pa.array([1]), pa.array([1.0]), pa.array(["a"]), pa.array([2.0])], names)
    with pytest.raises(PipelineStop, match="column 'x' is there 2 times"):
        rows_of(save("a.parquet", table), make_settings())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-9], id="cut off"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: b"id,x,name\n1,2,a\n", id="csv"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:9] + b"\xff" * 60 + data[69:], id="garbled"),
    ],
)
def test_a_damaged_file_is_explained(save, make_settings, damage):
    path = save("a.parquet", {"id": [*range(99)], "x": [1.0] * 99, "name": ["a"] * 99})
    with open(path, "rb+") as file:
        data = file.read()
        file.seek(0)
        file.write(damage(data))
        file.truncate()
    with pytest.raises(PipelineStop) as stop:
        rows_of(path, make_settings())
    assert str(stop.value).startswith(f"{path} can't be read: ")
    assert "Check that it is whole and really Parquet" in str(stop.value)


def test_a_file_that_is_gone_is_explained(tmp_path, make_settings):
    with pytest.raises(PipelineStop, match=r"gone\.parquet has vanished since the run began"):
        rows_of(str(tmp_path / "gone.parquet"), make_settings())


def test_batches_are_bounded_by_values_and_not_by_row_groups(save, make_settings, monkeypatch):
    monkeypatch.setattr(parquet, "_VALUES", 300)
    table = {"id": [*range(1000)], "x": [0.5] * 1000, "name": ["a"] * 1000}
    sizes = [len(b) for b in read(save("a.parquet", table, row_group_size=1000), make_settings())]
    assert sum(sizes) == 1000
    assert max(sizes) == 100


@pytest.mark.prove
def test_memory_does_not_grow_with_the_row_group(save, make_settings):
    chance = np.random.default_rng(0)
    count = 6_000_000
    table = {"id": chance.integers(0, 9**9, count), "x": chance.normal(size=count)}
    columns = {"id": "INT", "x": "FLOAT"}
    path = save("a.parquet", table, row_group_size=count, use_dictionary=False)
    del table
    pa.default_memory_pool().release_unused()
    process, highest = psutil.Process(), 0
    before = process.memory_info().rss
    for _ in read(path, make_settings(columns=columns)):
        highest = max(highest, process.memory_info().rss - before)
    assert highest < 60 << 20  # The row group has 96 MB.
