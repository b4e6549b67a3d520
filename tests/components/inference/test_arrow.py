import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.inference import arrow
from components.inference.columns import MISSING, InvalidRows, from_rows
from components.ingest.rows import BadRow, Columns, tables

_INT64 = st.integers(-(2**63), 2**63 - 1)
_FLOATS = st.one_of(
    st.floats(),
    st.integers(-(2**64), 2**64).map(float),
    st.sampled_from([3.4028234663852886e38, 3.4028235e38, -(2.0**63), 2.0**63, 0.5, -0.0]),
)
_NUMBERS = st.one_of(
    _INT64.map(str),
    _FLOATS.filter(math.isfinite).map(repr),
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?\Z"),
)
_ODD = st.sampled_from([
    "nan", "NaN", "-nan", "inf", "-Infinity", "1e400", "3.5e38", "3.40282351e38", "1e3", "-", " ",
    "0x1f", "0X1E", "0xee", "+5", "+5.0", ".5", "5.", "5.0", " 7", "7\t", "1_0", "True", "NA",
    "9223372036854775808", "-9223372036854775808", "12abc", "٣", "ä",
])  # fmt: skip
_TYPES = [
    (pa.float64(), _FLOATS),
    (pa.float32(), st.floats(width=32)),
    (pa.float16(), st.floats(width=16).map(np.float16)),
    (pa.int64(), _INT64),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.uint16(), st.integers(0, 2**16 - 1)),
    (pa.string(), st.text(st.characters(exclude_categories=["Cs"]))),
    (pa.large_string(), st.sampled_from(["", "Ä", "a" * 50])),
    (pa.binary(), st.binary(min_size=1)),
    (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "b", ""])),
    (pa.null(), st.none()),
]


def signature(kind: str, required: bool) -> dict:
    return {"inputs": {"x": {"type": kind, "required": required}}, "ignored": []}


def online(wanted: dict, value: object) -> object:
    """What callers get for a row of this value: the checked value, or what is wrong."""
    try:
        return from_rows(wanted, [{"x": value}])["x"][0]
    except InvalidRows as error:
        return str(error).removeprefix("row 0: ")


def in_files(wanted: dict, array: pa.Array, typed: bool) -> list[object]:
    """The same for rows that come together."""
    batch = pa.record_batch({"x": array})
    checked = arrow.check(wanted, batch, typed)
    good = iter(checked.columns["x"])
    assert checked.good.tolist() == [row not in checked.reasons for row in range(len(batch))]
    assert len(checked.columns["x"]) == checked.good.sum()
    return [
        next(good) if is_good else "; ".join(checked.reasons[row])
        for row, is_good in enumerate(checked.good)
    ]


def same(one: object, other: object) -> bool:
    return one == other or (_is_nan(one) and _is_nan(other))


def _is_nan(value: object) -> bool:
    return isinstance(value, float | np.floating) and math.isnan(value)


@pytest.mark.parametrize("kind", ["FLOAT", "INT", "BYTES"])
@pytest.mark.parametrize(("arrow_type", "values"), _TYPES, ids=lambda v: str(v)[:20])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_typed_values_are_checked_as_callers_are(kind, arrow_type, values, data):
    given_values = data.draw(st.lists(st.none() | values, min_size=1, max_size=12))
    wanted = signature(kind, data.draw(st.booleans()))
    array = pa.array(given_values, arrow_type)
    found = in_files(wanted, array, typed=True)
    expected = [online(wanted, value) for value in array.to_pylist()]
    assert all(map(same, found, expected)), (found, expected)


@pytest.mark.parametrize("kind", ["FLOAT", "INT"])
@settings(max_examples=300, deadline=None)
@given(texts=st.lists(_NUMBERS, min_size=1, max_size=8))
def test_a_number_that_json_can_spell_is_the_same_in_csv(kind, texts):
    wanted = signature(kind, False)
    array = pa.array([text.encode() for text in texts])
    for text, found in zip(texts, in_files(wanted, array, typed=False), strict=True):
        expected = online(wanted, json.loads(text))
        if isinstance(expected, str):
            assert isinstance(found, str)
            assert found.startswith(expected.partition(", got ")[0])  # here it came as a text
        else:
            assert same(found, expected)


def ingested(folder, kind: str, texts: list[str]) -> list:
    """What the ingest reads, or its complaint."""
    path = folder / "rows.csv"
    path.write_text("x,y\n" + "".join(f'"{text}",1\n' for text in texts))
    with tables([str(path)]) as reader:
        reading = reader.read(str(path), Columns({"x": kind, "y": "INT"}))
        rows = [row["x"] for batch in reading for row in batch.to_pylist()]
        return reading.bad_rows or rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ingested")


@pytest.mark.parametrize("kind", ["FLOAT", "INT", "BYTES"])
@settings(max_examples=150, deadline=None)
@given(text=_ODD | _NUMBERS)
def test_what_the_ingest_reads_is_read_alike(folder, kind, text):
    came = ingested(folder, kind, [text])
    (found,) = in_files(signature(kind, False), pa.array([text.encode()]), typed=False)
    if came and not isinstance(came[0], BadRow):
        (value,) = came
        if value is None:
            assert same(found, MISSING[kind])
        elif kind == "INT" and value == MISSING["INT"]:  # reserved for what is missing
            assert "must be an integer" in found
        elif kind == "FLOAT" and isinstance(found, str):  # float32 rounds it down to its largest
            assert abs(value) == float(np.finfo(np.float32).max)
        else:  # by way of float64, as callers' numbers come: at most a last digit apart
            assert found == value or math.isclose(found, value, rel_tol=2**-23, abs_tol=1e-44)
    elif not isinstance(found, str):  # what JSON reads and the ingest does not: 5e0, 0x1f
        assert kind == "INT" and float(int(text, 16) if "x" in text.lower() else text) == found


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("INT", pa.array([True, False, None])),
        ("FLOAT", pa.array([True, False, None])),
        ("BYTES", pa.array([0, 18_000, None], pa.date32())),
        ("BYTES", pa.array([0, 1_500, None], pa.timestamp("ms"))),
        ("BYTES", pa.array([0, 1_500, None], pa.timestamp("us", "Europe/Paris"))),
        ("BYTES", pa.array([0, 1_500, None], pa.time32("ms"))),
    ],
    ids=str,
)
def test_what_trains_from_parquet_is_predicted_alike(folder, kind, column):
    path = str(folder / "rows.parquet")
    pq.write_table(pa.table({"x": column}), path)
    with tables([path]) as reader:
        rows = [r["x"] for b in reader.read(path, Columns({"x": kind})) for r in b.to_pylist()]
    read_back = pq.read_table(path)["x"].combine_chunks()
    assert arrow.accepts(kind, read_back.type)
    found = in_files(signature(kind, False), read_back, typed=True)
    assert all(same(f, MISSING[kind] if r is None else r) for f, r in zip(found, rows, strict=True))


def test_nan_is_missing_in_csv_and_an_error_in_typed_files():
    wanted = signature("FLOAT", False)
    assert math.isnan(in_files(wanted, pa.array([b"nan"]), typed=False)[0])
    assert in_files(wanted, pa.array([math.nan]), typed=True) == ["'x' must be a number, got nan"]


def test_a_csv_text_must_be_utf8_and_an_empty_one_is_missing():
    array = pa.array([b"\xff", "Ä".encode(), b"", None])
    found = in_files(signature("BYTES", False), array, typed=False)
    assert found == [r"'x' must be a text, got '\\xff'", "Ä".encode(), b"", b""]


def test_integers_beyond_the_floats_stay_exact_beside_others():
    texts = [b"9007199254740993", b"5.0", b"x", None]
    found = in_files(signature("INT", False), pa.array(texts), typed=False)
    assert found == [9007199254740993, 5, "'x' must be an integer, got 'x'", MISSING["INT"]]


def test_few_culprits_are_found_among_many_rows_with_their_reasons():
    rows = 50_000
    texts = [str(number).encode() for number in range(rows)]
    texts[17], texts[40_001] = b"1O", b"4.5"
    inputs = {"x": {"type": "INT", "required": True}, "y": {"type": "BYTES", "required": True}}
    names = [b"n"] * rows
    names[17] = None
    batch = pa.record_batch({"x": pa.array(texts), "y": pa.array(names)})
    checked = arrow.check({"inputs": inputs, "ignored": []}, batch, typed=False)
    assert checked.reasons == {
        17: ["'x' must be an integer, got '1O'", "'y' is required (a text)"],
        40_001: ["'x' must be an integer, got '4.5'"],
    }
    numbers = [number for number in range(rows) if number not in checked.reasons]
    assert checked.columns["x"].tolist() == numbers
    assert len(checked.columns["y"]) == rows - 2


def test_an_absent_column_is_missing_and_an_unknown_one_ignored():
    batch = pa.record_batch({"z": pa.array([1, 2])})
    wanted = signature("INT", False)
    assert arrow.check(wanted, batch, typed=True).columns["x"].tolist() == [MISSING["INT"]] * 2
    wanted = signature("INT", True)
    reason = "'x' is required (an integer)"
    assert arrow.check(wanted, batch, typed=True).reasons == {0: [reason], 1: [reason]}


@pytest.mark.parametrize("kind", ["FLOAT", "INT", "BYTES"])
@pytest.mark.parametrize(
    ("array", "allowed"),
    [
        (pa.array([1]), {"FLOAT", "INT"}),
        (pa.array([1.0]), {"FLOAT", "INT"}),
        (pa.array([1], pa.decimal128(5, 2)), {"FLOAT"}),
        (pa.array(["1"]), {"BYTES"}),
        (pa.array(["1"]).dictionary_encode(), {"BYTES"}),
        (pa.array([b"1"], pa.binary(1)), {"BYTES"}),
        (pa.array([None]), {"FLOAT", "INT", "BYTES"}),
        (pa.array([True]), {"FLOAT", "INT"}),
        (pa.array([[1]]), set()),
        (pa.array([1], pa.timestamp("s")), {"BYTES"}),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_type_fits_if_a_value_of_it_can(kind, array, allowed):
    assert arrow.accepts(kind, array.type) == (kind in allowed)
    (found,) = in_files(signature(kind, False), array, typed=True)
    assert isinstance(found, str) == (kind not in allowed)
