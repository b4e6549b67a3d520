"""What becomes of a column, by its profile."""

import pyarrow as pa
import pytest

from pipeline.adopt import columns, profiling
from pipeline.adopt.scores import Score

N = 400


def profiled(name, values):
    array = pa.array(values, None if any(v is not None for v in values) else pa.int64())
    return profiling.profile(pa.table({name: array}))[0]


def decision(name, values):
    column = profiled(name, values)
    return columns.left_out(column) or columns.kept(column, None)


WORDS = "the quick brown fox jumps over a lazy dog and then sleeps"


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("x", [None] * N, "sparse"),
        ("x", [None] * (N - 2) + [1, 2], "sparse"),
        ("x", [7] * N, "constant"),
        ("x", ["same"] * N, "constant"),
        ("customer", [f"c{n:05}" for n in range(N)], "id"),
        ("row", list(range(N)), "id"),
        ("row", list(range(N, 0, -1)), "id"),
        ("account_id", [n * 7919 % 1_000_003 for n in range(N)], "id"),
        ("accountId", [n * 7919 % 1_000_003 for n in range(N)], "id"),
        ("population", [n * 7919 % 1_000_003 for n in range(N)], None),
        ("price", [n * 0.37 % 91 for n in range(N)], None),
        ("day", [f"2024-{n % 12 + 1:02}-{n % 28 + 1:02}" for n in range(N)], "time"),
        ("day", [f"2024-01-01T{n % 24:02}:00:00Z" for n in range(N)], "time"),
        ("day", [f"{n % 28 + 1:02}.{n % 12 + 1:02}.2024" for n in range(N)], "time"),
        ("day", [f"{n % 12 + 1}/{n % 28 + 1}/2024" for n in range(N)], "time"),
        ("created_at", [1_600_000_000 + 3 * (n % 7) for n in range(N)], "time"),
        ("created_at", [1_600_000_000_000 + 3 * (n % 7) for n in range(N)], "time"),
        ("when", [1_600_000_000 + 60 * n for n in range(N)], "time"),
        ("salary", [1_600_000_000 + 3 * (n % 7) for n in range(N)], None),
        ("review", [f"{WORDS} {n}" for n in range(N)], "text"),
        ("blob", ["x" * 5_000 + str(n) for n in range(N)], "text"),
        ("town", [f"town {n // 2}" for n in range(N)], "categories"),
        ("town", [f"town {n // 10}" for n in range(N)], None),
        ("plan", ["a rather long name of a plan that is only one of two", "free"] * (N // 2), None),
    ],
)
def test_columns_that_no_model_should_learn_are_left_out(name, values, reason):
    assert decision(name, values).excluded == reason
    assert decision(name, values).why


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("colour", ["red", "green"] * 200, "vocabulary"),
        ("town", [f"town {n // 10}" for n in range(N)], "vocabulary"),
        ("shop", [f"shop {n // 4}" for n in range(5_000)], "hashed"),
        ("amount", [n % 90 for n in range(N)], "numeric"),
        ("amount", [n % 7 for n in range(N)], "numeric"),
        ("amount", [n % 70 / 8 for n in range(N)], "numeric"),
        ("is_new", [0, 1] * 200, "numeric"),
        ("month", [n % 12 + 1 for n in range(N)], "vocabulary"),
        ("shipToRegion", [n % 9 for n in range(N)], "vocabulary"),
        ("postal", [10_000 + n % 12 * 31 for n in range(N)], "vocabulary"),
        ("zip_code", [10_000 + n % 90 * 31 for n in range(N)], "vocabulary"),
        ("month", [float(n % 12) if n % 5 else None for n in range(N)], "vocabulary"),
    ],
)
def test_the_kind_of_a_feature_follows_from_type_name_and_values(name, values, kind):
    assert decision(name, values).features[0]["kind"] == kind


def test_gaps_become_a_value_of_their_own():
    with_gaps = decision("amount", [n % 90 if n % 4 else None for n in range(N)])

    assert [feature["kind"] for feature in with_gaps.features] == ["numeric", "bucketized"]
    assert with_gaps.features[1]["missing"] == "own"
    assert "25% missing" in with_gaps.why


def test_buckets_come_where_they_explain_more_than_a_line():
    column = profiled("amount", [n % 90 for n in range(2_000)])
    curved, straight = (
        columns.kept(column, Score("R2", 0.5, 0.5, by_bins, by_line))
        for by_bins, by_line in ((0.5, 0.1), (0.5, 0.5))
    )

    assert [feature["kind"] for feature in curved.features] == ["numeric", "bucketized"]
    assert [feature["kind"] for feature in straight.features] == ["numeric"]


@pytest.mark.parametrize(
    ("certain", "rows", "expected"), [(0.97, 500, True), (0.95, 500, False), (1.0, 49, False)]
)
def test_a_leak_is_more_than_chance(certain, rows, expected):
    assert columns.is_leak(Score("AUC", 1.0, certain, 1.0, 1.0), rows) is expected


def test_categories_are_taken_in_when_a_person_wants_them():
    column = profiled("town", [f"town {n // 2}" for n in range(N)])

    assert columns.kept(column, None, forced=True).features[0]["kind"] == "vocabulary"
