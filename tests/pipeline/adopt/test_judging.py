"""Splits, slices, thresholds and sizes follow from the number of rows."""

import pyarrow as pa
import pytest

from pipeline.adopt import columns, judging, profiling
from pipeline.adopt.sizes import sizes


def decisions(table):
    return [columns.kept(column, None) for column in profiling.profile(pa.table(table))]


@pytest.mark.parametrize("rows", [30, 300, 3_000, 30_000, 3_000_000])
def test_every_size_trains_some_steps_and_not_for_ever(rows):
    found = sizes(rows)
    steps = found.epochs * -(-rows // found.batch)

    assert 300 <= steps <= 20_000
    assert 1 <= found.evaluate_every_steps <= steps
    assert found.patience is None or steps / found.evaluate_every_steps > found.patience


@pytest.mark.parametrize("rows", [100, 10_000])
def test_fractions_add_up(rows):
    assert sum(judging.fractions(rows).values()) == pytest.approx(1)


def test_slices_are_columns_with_a_few_values_of_many_rows():
    n = 10_000
    table = {
        "two": ["a", "b"] * (n // 2),
        "skewed": ["a"] * (n - 1) + ["b"],
        "many": [f"v{i % 100}" for i in range(n)],
        "amount": [i / 7 for i in range(n)],
        "three": [["x", "y", "z"][i % 3] for i in range(n)],
    }

    assert judging.slices(decisions(table), n, 2_000) == [["two"], ["three"], ["two", "three"]]


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_a_model_must_not_be_worse_than_the_heuristic(problem):
    limits = judging.thresholds(problem, 400, deviation=10)

    assert [limit["over_heuristic"] for limit in limits if "over_heuristic" in limit] == [0]
    margins = [limit["over_champion"] for limit in limits if "over_champion" in limit]
    assert margins == [-0.15 if problem == "regression" else -0.015]
