import random as chance

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from components.ingest import splitting
from components.ingest.rows import Columns, tables
from components.ingest.settings import IngestSettings, Split
from components.ingest.splitting import (
    assign,
    canonical,
    count_times,
    find_cuts,
    fingerprints,
    sampled,
)

GOLDEN = """y,name,id,x,when
1,Anna,1,0.1,2020-02-29
1,"Zoë, ""Z\""",-5,1e-3,2020-03-01 10:00:00
1,,9223372036854775807,,
1, spaced ,0,16777217,NA
1,"two
lines",12,-0.0,x
1,Bob,7,3.4028235e38,2020
1,Bob,7,.5,2020
1,Bob,,5.,2020
1,łódź,42,1e-45,-
"""
SPLIT = Split(by="row", train=0.6, eval=0.2, test=0.2)
rows = st.fixed_dictionaries(
    {
        "id": st.none() | st.integers(-(2**63), 2**63 - 1),
        "name": st.none() | st.binary(max_size=4),
        "note": st.none() | st.binary(max_size=4),
        "x": st.none() | st.floats(width=32, allow_nan=False),
    }
)
SCHEMA = pa.schema({"id": pa.int64(), "name": pa.binary(), "note": pa.binary(), "x": pa.float32()})


def read(path, kinds):
    with tables([path]) as reader:
        return [batch for batch in reader.read(path, Columns(kinds)) if len(batch)]


def test_the_rows_of_a_file_keep_their_hashes_and_splits(write):
    """What was trained on must not become test data: these came before DuckDB read the files."""
    kinds = {"id": "INT", "name": "BYTES", "when": "BYTES", "x": "FLOAT", "y": "INT"}
    (batch,) = read(write("a.csv", GOLDEN), kinds)
    assert [f"{found:016x}" for found in fingerprints(batch).tolist()] == [
        *("568901995950e417", "64806cb957f1ac5f", "57e770e335cb3a46", "e209e508759df36e"),
        *("fc211505bbb7a9cd", "0e3655a81e93a30a", "25598f1cdbf929f2", "2652152d60241680"),
        "c679953e4ca48894",
    ]
    assert assign(batch, SPLIT, None).tolist() == [0, 0, 0, 2, 2, 0, 0, 0, 1]
    by_key = Split(by="key", key=["name"], train=0.6, eval=0.2, test=0.2)
    assert assign(batch, by_key, None).tolist() == [2, 1, 0, 2, 0, 0, 0, 0, 0]
    settings = IngestSettings(columns=kinds, label="y", split=SPLIT, sample=0.5)
    assert sampled(batch, settings)["id"].to_pylist() == [1, -5, 2**63 - 1, 42]


def batch_of(some_rows):
    return pa.RecordBatch.from_pylist(some_rows, SCHEMA)


def numbered(count):
    return pa.RecordBatch.from_pydict({"id": np.arange(count), "name": [b"a"] * count})


@given(st.lists(rows, min_size=1, max_size=20), st.randoms())
def test_a_row_has_its_split_wherever_it_stands(some_rows, random):
    alone = [assign(batch_of([row]), SPLIT, None)[0] for row in some_rows]
    order = random.sample(range(len(some_rows)), len(some_rows))
    shuffled = assign(batch_of([some_rows[i] for i in order]), SPLIT, None)
    sliced = assign(batch_of([*some_rows, *some_rows]).slice(len(some_rows)), SPLIT, None)
    assert [alone[i] for i in order] == shuffled.tolist()
    assert alone == sliced.tolist()


@given(rows, rows)
def test_different_rows_have_different_bytes(a, b):
    first, second = canonical(batch_of([a, b])).to_pylist()
    same = batch_of([a]).equals(batch_of([b])) and repr(a["x"]) == repr(b["x"])
    assert (first == second) == same


def test_a_sample_is_a_subset_with_the_same_splits(make_settings):
    batch = numbered(50_000)
    splits = assign(batch, SPLIT, None)
    larger: set[int] = set(range(50_000))
    for fraction in (0.5, 0.1, 0.01):
        part = sampled(batch, make_settings(sample=fraction))
        ids = part["id"].to_pylist()
        assert abs(len(ids) / 50_000 - fraction) < 0.01
        assert set(ids) < larger
        larger = set(ids)
        share = np.bincount(splits[ids], minlength=3) / len(ids)
        np.testing.assert_allclose(share, [0.6, 0.2, 0.2], atol=0.05)


BY_TIME = Split(by="time", time="t", train=0.8, eval=0.1, test=0.1)


def test_the_newest_rows_are_test_and_equal_times_stay_together():
    for times in (range(100), [f"{i:03}".encode() for i in range(100)]):
        assert find_cuts(dict.fromkeys(times, 7), BY_TIME) == (times[79], times[89])
    assert find_cuts({1: 50, 2: 45, 3: 5}, BY_TIME) == (2, 2)
    assert find_cuts({1: 10}, BY_TIME) == (1, 1)
    assert find_cuts({}, BY_TIME) is None


def test_many_different_times_are_summarised_closely():
    times = [*range(0, 1_000_000, 2)]
    chance.Random(2).shuffle(times)
    parts = [dict.fromkeys(times[i : i + 99_999], 1) for i in range(0, 500_000, 99_999)]
    counts = count_times(count_times([part]) for part in parts)
    assert len(counts) <= splitting._LIMIT
    assert sum(counts.values()) == 500_000
    train, until_eval = find_cuts(counts, BY_TIME)
    assert abs(train - 800_000) < 100
    assert abs(until_eval - 900_000) < 100
