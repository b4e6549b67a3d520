import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.ingest.rows import Columns, tables
from components.ingest.settings import SPLITS, IngestSettings, Split
from components.ingest.splitting import assign, canonical, fingerprints, sampled

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
        return [*reader.read(path, Columns(kinds))]


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


def test_missing_differs_from_empty_and_from_zero():
    one = batch_of([{"id": None, "name": b"", "note": None, "x": None}])
    two = batch_of([{"id": 0, "name": None, "note": b"", "x": 0.0}])
    assert canonical(one) != canonical(two)
    assert len({*canonical(one).to_pylist(), *canonical(two).to_pylist()}) == 2


def test_the_hash_is_farmhash_and_stays_as_it_is():
    # A change would deal all rows anew.
    batch = batch_of([{"id": 7, "name": b"taxi", "note": None, "x": 1.5}])
    assert canonical(batch)[0].as_py().hex() == (
        "07000000000000000004000000ffffffff0000c03f0074617869"
    )
    assert fingerprints(batch).tolist() == [6628644416262880372]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(["id", "x", "name"]), st.randoms())
def test_file_and_column_order_do_not_matter(write, make_settings, columns, random):
    data = [{"id": str(i), "x": f"{i / 4:g}", "name": f"n{i % 3}"} for i in range(30)]
    random.shuffle(data)
    cut = random.randrange(1, 29)
    found = {}
    for name, header, part in [
        ("a.csv", columns, data[:cut]),
        ("b.csv", columns[::-1], data[cut:]),
    ]:
        lines = [",".join(header), *(",".join(row[c] for c in header) for row in part)]
        for batch in read(
            write(name, "\n".join(lines)), {"id": "INT", "name": "BYTES", "x": "FLOAT"}
        ):
            ids, splits = batch["id"].to_pylist(), assign(batch, SPLIT, None).tolist()
            found |= dict(zip(ids, splits, strict=True))
    assert [found[i] for i in range(30)] == [
        int(digit) for digit in "011002210000020210002200020200"
    ]


def test_the_fractions_are_met():
    counts = np.bincount(assign(numbered(100_000), SPLIT, None), minlength=len(SPLITS))
    np.testing.assert_allclose(counts / 100_000, [0.6, 0.2, 0.2], atol=0.005)


def test_a_larger_train_fraction_moves_rows_only_at_the_border():
    larger = Split(by="row", train=0.7, eval=0.2, test=0.1)
    before, after = (assign(numbered(10_000), split, None) for split in (SPLIT, larger))
    assert (after <= before).all()


def test_rows_with_the_same_key_share_a_split():
    by_key = Split(by="key", key=["name"], train=0.6, eval=0.2, test=0.2)
    keys = [b"%d" % (i % 50) for i in range(5_000)]
    batch = pa.RecordBatch.from_pydict({"id": range(5_000), "name": keys})
    splits = dict.fromkeys(keys)
    for key, split in zip(keys, assign(batch, by_key, None).tolist(), strict=True):
        assert splits[key] in (None, split)
        splits[key] = split
    assert set(splits.values()) == {0, 1, 2}


def test_by_time_the_cuts_decide_and_equal_times_stay_together():
    by_time = Split(by="time", time="t", train=0.6, eval=0.2, test=0.2)
    for kind, values, cuts in [
        (pa.int64(), [1, 2, 2, 3, 4], (2, 3)),
        (pa.float32(), [0.1, 0.2, 0.2, 0.3, 0.4], (np.float32(0.2).item(), 0.35)),
        (
            pa.binary(),
            [b"2024-01", b"2024-02", b"2024-02", b"2024-10", b"2025"],
            (b"2024-02", b"2024-10"),
        ),
    ]:
        batch = pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["t"])
        assert assign(batch, by_time, cuts).tolist() == [0, 0, 0, 1, 2]


def test_a_sample_is_a_subset_with_the_same_splits(make_settings):
    batch = numbered(50_000)
    splits = dict(zip(range(50_000), assign(batch, SPLIT, None).tolist(), strict=True))
    larger: set[int] = set()
    for fraction in (0.5, 0.1, 0.01):
        part = sampled(batch, make_settings(sample=fraction))
        ids = part["id"].to_pylist()
        assert abs(len(ids) / 50_000 - fraction) < 0.01
        assert not larger or set(ids) < larger
        larger = set(ids)
        assert [splits[i] for i in ids] == assign(part, SPLIT, None).tolist()
        share = np.bincount(assign(part, SPLIT, None), minlength=3) / len(ids)
        np.testing.assert_allclose(share, [0.6, 0.2, 0.2], atol=0.05)
