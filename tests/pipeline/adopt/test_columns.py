"""What becomes of a column, by its profile."""

import pyarrow as pa
import pytest

from pipeline.adopt import proposal
from pipeline.adopt.part import Request
from pipeline.adopt.table import profile, remarks

N = 400
WORDS = "the quick brown fox jumps over a lazy dog and then sleeps"


def profiled(name, values):
    array = pa.array(values, None if any(v is not None for v in values) else pa.int64())
    return profile(pa.table({name: array}))[name]


def decision(name, values, **options):
    column = profiled(name, values)
    request = Request("", "", **options)
    return proposal.exclusion(column, request) or proposal.use(column, 0.0, request)


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
        ("created_at", [1_600_000_000 + 3 * (n % 7) for n in range(N)], "time"),
        ("created_at", [f"2024-01-01T10:{n % 60:02}:00Z" for n in range(N)], "time"),
        ("salary", [1_600_000_000 + 3 * (n % 7) for n in range(N)], None),
        ("review", [f"{WORDS} {n}" for n in range(N)], "text"),
        ("blob", ["x" * 5_000 + str(n) for n in range(N)], "text"),
        ("town", [f"town {n // 2}" for n in range(N)], "categories"),
        ("town", [f"town {n // 10}" for n in range(N)], None),
        ("plan", ["a rather long name of a plan that is only one of two", "free"] * (N // 2), None),
        ("household", [n // 4 for n in range(N)], "id"),
        ("household_id", [f"h{n // 4 * 77 % 1009}" for n in range(N)], "id"),
        ("age", [n * 13 % 80 for n in range(N)], None),
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
        ("shop", [f"shop {n % 1250}" for n in range(5_000)], "hashed"),
        ("amount", [n % 90 for n in range(N)], "numeric"),
        ("amount", [n % 7 for n in range(N)], "numeric"),
        ("amount", [n % 70 / 8 for n in range(N)], "numeric"),
        ("is_new", [0, 1] * 200, "numeric"),
        ("month", [n % 12 + 1 for n in range(N)], "vocabulary"),
        ("shipToRegion", [n % 9 for n in range(N)], "vocabulary"),
        ("postal", [10_000 + n % 12 * 31 for n in range(N)], "vocabulary"),
        ("zip_code", [10_000 + n % 90 * 31 for n in range(N)], "vocabulary"),
        ("month", [float(n % 12) if n % 5 else None for n in range(N)], "vocabulary"),
        ("movie_id", [n % 600 * 7 for n in range(5_000)], "hashed"),
        ("Clothing ID", [n % 1_200 for n in range(20_000)], "hashed"),
        ("userid", [n % 300 for n in range(5_000)], "hashed"),
        ("ticket", [100_000 + n % 200 * 311 for n in range(5_000)], "hashed"),
        ("humid", [n % 300 for n in range(5_000)], "numeric"),
    ],
)
def test_the_kind_of_a_feature_follows_from_type_name_and_values(name, values, kind):
    [(_, settings), *_] = decision(name, values).features
    assert settings["kind"] == kind


@pytest.mark.parametrize(
    ("name", "values", "form", "parts"),
    [
        ("x", [f"2024-{n % 12 + 1:02}-{n % 28 + 1:02}" for n in range(N)], "ymd", "month weekday"),
        ("x", [f"2012/03/{n % 28 + 1:02}" for n in range(N)], "ymd", "weekday"),
        ("x", [f"2024-01-01T{n % 24:02}:00:00Z" for n in range(N)], "ymd", "hour"),
        ("x", [f"{n % 28 + 1}.{n % 12 + 1:02}.2024" for n in range(N)], "dmy", "month weekday"),
        ("x", [f"{n % 12 + 1}/{n % 28 + 1}/24" for n in range(N)], "mdy", "month weekday"),
        ("x", [f"{n % 28 + 1}-Feb-2024" for n in range(N)], "dmy", "weekday"),
        ("x", [20240101 + n % 28 for n in range(N)], "ymd", "weekday"),
        ("x", [1_600_000_000 + 3_600 * n for n in range(N)], "seconds", "weekday hour"),
        (
            "at",
            [(1_600_000_000 + n % 7 * 86_400) * 1_000 for n in range(N)],
            "milliseconds",
            "weekday",
        ),
    ],
)
def test_of_a_date_what_recurs_is_learned(name, values, form, parts):
    made = decision(name, values, time=name if "month" not in parts else None)
    assert [settings["part"] for _, settings in made.features] == parts.split()
    assert {settings["format"] for _, settings in made.features} == {form}


def test_gaps_become_a_value_of_their_own():
    made = decision("amount", [n % 90 if n % 4 else None for n in range(N)])
    _, (ending, ranges) = made.features
    assert (ending, ranges["kind"], ranges["missing"]) == ("_range", "bucketized", "own")
    assert "25% missing" in made.why


def test_of_enough_rows_a_number_becomes_its_position_among_quantiles():
    few, many = ([n % 30 + 0.5 if n % 9 else None for n in range(count)] for count in (N, 5_000))
    kinds = [settings["kind"] for _, settings in decision("amount", few).features]
    assert kinds == ["numeric", "bucketized"]
    ((_, settings),) = decision("amount", many).features
    expected = {"kind": "numeric", "scale": "quantile", "bins": 29, "missing": "own"}
    assert settings == expected


def test_of_enough_rows_the_words_of_sentences_are_learned():
    made = decision("review", [f"{WORDS} {n}" for n in range(2_000)])
    ((_, settings),) = made.features
    assert (settings["kind"], settings["tokens"]) == ("text", 26)
    assert "words on average" in made.why


def test_categories_are_taken_in_when_a_person_wants_them():
    column = profiled("town", [f"town {n // 2}" for n in range(N)])
    request = Request("", "", keep=("town",), tidy=("town",))
    ((_, settings),) = proposal.use(column, 0.0, request).features
    assert (settings["kind"], settings["tidy"]) == ("vocabulary", True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([f"{n},{n % 100:02}" for n in range(N)], "--decimal ,"),
        ([f"{n + 1},{n:03}.50" for n in range(N)], "--thousands ,"),
        ([f"{n + 1}.{n:03},50" for n in range(N)], "--decimal , --thousands ."),
        ([f"${n}" for n in range(N)], "--units '$'"),
        ([f"{n % 90} %" for n in range(N)], "--units '%'"),
        ([str(n * 0.37) if n != 7 else "n.a." for n in range(N)], "--nulls n.a."),
        ([f"${n + 1},{n:03}.50" for n in range(N)], "--units '$' --thousands ,"),
        (["yes", "no", "yes "] * 100, "'yes' beside 'yes ' are different values; --tidy x"),
        (["Yes", "no", "yes", "no"] * 100, "'Yes' beside 'yes'"),
        (["12", "a", "b"] * 100, None),
        ([f"c{n}" for n in range(N)], None),
        ([n % 90 for n in range(N)], None),
    ],
)
def test_what_is_odd_in_a_column_is_told_with_what_mends_it(values, words):
    told = " ".join(remarks(profiled("x", values), Request("", "")))
    assert words in told if words else not told


def test_names_that_sql_takes_for_one_are_profiled_apart():
    found = profile(pa.table({"a": [1, 2], "A": ["x", "x"], 'say "hi"': [0.5, None]}))
    assert [(c.kind, c.distinct, c.present) for c in found.values()] == [
        ("INT", 2, 2), ("BYTES", 1, 2), ("FLOAT", 1, 1),
    ]  # fmt: skip
