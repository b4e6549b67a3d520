"""What callers may send, and what they are told when they may not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.inference.columns import DTYPES, InvalidRows, from_rows, from_values

SIGNATURE: dict[str, Any] = {
    "inputs": {
        "fare": {"type": "FLOAT", "required": False},
        "hour": {"type": "INT", "required": True},
        "company": {"type": "BYTES", "required": False},
    },
    "ignored": ["tips"],
    "problem": "binary",
    "classes": None,
}
LOWEST = np.iinfo(np.int64).min


def test_rows_become_columns() -> None:
    columns = from_rows(
        SIGNATURE,
        [
            {"fare": 12.5, "hour": 3, "company": "Blue Räder"},
            {"fare": 7, "hour": 4.0, "company": None},
            {"hour": -5},
        ],
    )
    np.testing.assert_array_equal(columns["fare"], np.float32([12.5, 7, np.nan]))
    np.testing.assert_array_equal(columns["hour"], np.int64([3, 4, -5]))
    assert columns["company"].tolist() == ["Blue Räder".encode(), b"", b""]
    assert {name: values.dtype for name, values in columns.items()} == {
        "fare": np.float32,
        "hour": np.int64,
        "company": np.object_,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"fare": "12", "hour": 1}, "row 0: 'fare' must be a number, got '12'"),
        ({"fare": 1e39, "hour": 1}, "row 0: 'fare' must be a number, got 1e+39"),
        ({"fare": float("inf"), "hour": 1}, "'fare' must be a number, got inf"),
        ({"fare": float("nan"), "hour": 1}, "'fare' must be a number, got nan"),
        ({"hour": 1.5}, "row 0: 'hour' must be an integer, got 1.5"),
        ({"hour": 2**63}, "'hour' must be an integer, got 9223372036854775808"),
        ({"hour": LOWEST}, "'hour' must be an integer, got -9223372036854775808"),
        ({"fare": 1.0}, "row 0: 'hour' is required (an integer)"),
        ({"hour": 1, "company": 7}, "row 0: 'company' must be a text, got 7"),
        ({"hour": 1, "company": "\ud800"}, "row 0: 'company' must be a text"),
        ({"hour": 1, "compny": "x"}, "row 0: no column 'compny'; did you mean 'company'?"),
        ({}, "row 0 has no column that the model reads (fare, hour, company)"),
        (7, "row 0 must be an object of columns, got 7"),
    ],
)
def test_what_is_refused_says_row_column_and_what_is_expected(row: Any, message: str) -> None:
    with pytest.raises(InvalidRows) as refused:
        from_rows(SIGNATURE, [row])
    assert message in str(refused.value)


def test_all_mistakes_of_a_request_are_told_at_once_but_no_thousand() -> None:
    with pytest.raises(InvalidRows) as refused:
        from_rows(SIGNATURE, [{"fare": "a", "hour": 1}, {"hour": 1}, {"fare": 1, "company": 3}])
    for part in ("row 0: 'fare'", "row 2: 'company'", "row 2: 'hour' is required"):
        assert part in str(refused.value)
    with pytest.raises(InvalidRows, match=r"and 990 more$"):
        from_rows(SIGNATURE, [{"fare": "x", "hour": 1}] * 1000)


def test_other_columns_are_ignored() -> None:
    """After a rollback, callers go on sending what only the newer model reads."""
    columns = from_rows(SIGNATURE, [{"hour": 1, "tips": 3, "weather": "rain"}])
    assert set(columns) == set(SIGNATURE["inputs"])


@pytest.mark.parametrize(
    ("sent", "column", "slip"),
    [
        ("compnay", "company", True),
        ("Company", "company", True),
        ("companys", "company", True),
        ("trip_start_minute", "trip_start_month", False),
        ("V29", "V28", False),
        ("feature_2", "feature_1", False),
        ("to", "of", False),
    ],
)
def test_a_slip_is_told_from_a_column_of_another_model(sent: str, column: str, slip: bool) -> None:
    inputs = {name: {"type": "BYTES", "required": False} for name in ("shop", column)}
    signature = {**SIGNATURE, "inputs": inputs}
    row = {"shop": "x", sent: "y"}
    if not slip:
        assert from_rows(signature, [row])[column].tolist() == [b""]
        return
    with pytest.raises(InvalidRows, match=f"'{sent}'; did you mean '{column}'"):
        from_rows(signature, [row])
    from_rows(signature, [{**row, column: "z"}])  # where it is there, the other is another


def test_values_are_checked_as_rows_are() -> None:
    columns = from_values(SIGNATURE, {"hour": [1, 2], "fare": [None, 2.5]}, 2)
    np.testing.assert_array_equal(columns["fare"], np.float32([np.nan, 2.5]))
    assert columns["company"].tolist() == [b"", b""]
    with pytest.raises(InvalidRows, match="row 0: 'company' is required"):
        required = {"company": {"type": "BYTES", "required": True}}
        from_values({**SIGNATURE, "inputs": required}, {"company": [b""]}, 1)
    with pytest.raises(InvalidRows, match="row 1: 'hour' must be an integer, got 'x'"):
        from_values(SIGNATURE, {"hour": [1, "x"]}, 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(st.lists(st.dictionaries(st.sampled_from(["fare", "hour", "company", "x"]), VALUES)))
def test_whatever_json_holds_is_a_column_or_a_clear_no(rows: list[dict[str, Any]]) -> None:
    try:
        columns = from_rows(SIGNATURE, rows)
    except InvalidRows as refused:
        assert "row " in str(refused)
        return
    assert not np.isinf(columns["fare"]).any()
    assert all(row["hour"] == value for row, value in zip(rows, columns["hour"], strict=True))
    for name, values in columns.items():
        assert values.dtype == DTYPES[SIGNATURE["inputs"][name]["type"]]
        assert len(values) == len(rows)
