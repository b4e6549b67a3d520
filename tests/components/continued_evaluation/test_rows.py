"""Rows that are no news."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfx.utils import io_utils

from components.continued_evaluation import rows
from tests.components.evaluation import samples


def hashes(folder: Path, table: list[dict[str, Any]]) -> np.ndarray:
    schema = io_utils.SchemaReader().read(
        io_utils.get_only_uri_in_dir(samples.schema(folder / "schema").uri)
    )
    return rows.hashes(samples.examples(folder / "data", test=table), "test", schema)


def test_a_row_is_the_same_wherever_it_stands(tmp_path: Path) -> None:
    table = samples.rows(6000)
    shuffled = random.Random(0).sample(table, len(table))
    first, second = hashes(tmp_path / "a", table), hashes(tmp_path / "b", shuffled)
    assert len(first) == 6000
    assert first.tolist() == second.tolist()


def test_shares(tmp_path: Path) -> None:
    own, other = samples.rows(300), samples.rows(300, seed=1)
    twice = hashes(tmp_path / "twice", own + own)
    half = hashes(tmp_path / "half", own[:150] + other[:150])
    assert rows.shares(twice, []) == (0.5, 0.0)
    assert rows.shares(half, [hashes(tmp_path / "own", own)]) == (0.0, 0.5)
    parts = [hashes(tmp_path / "one", own[:50]), hashes(tmp_path / "two", other[100:])]
    assert rows.shares(half, parts) == pytest.approx((0.0, 100 / 300))
    assert rows.shares(np.zeros(0, np.uint64), parts) == (0.0, 0.0)


def drawn(rows: range) -> np.ndarray:
    """Hashes of numbered rows, sorted: as even as FarmHash's."""
    generator = np.random.default_rng(1)
    return np.sort(generator.integers(0, 2**64, 2_000_000, np.uint64)[rows])


def test_what_is_kept_of_a_span_is_bounded_and_small_spans_are_exact() -> None:
    large, small = drawn(range(1_000_000)), drawn(range(300))
    assert rows.sketch(large).nbytes == 800_000
    assert rows.sketch(np.concatenate([small, small])).tolist() == small.tolist()
    seen = rows.shares(drawn(range(200, 400)), [rows.sketch(small), rows.sketch(drawn(range(0)))])
    assert seen == (0.0, 0.5)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_share_of_large_spans_is_estimated(share: float) -> None:
    """Half of what was seen is in one earlier span, half in another, smaller one."""
    count = 600_000
    half = int(count * share / 2)
    first = np.sort(np.concatenate([drawn(range(half)), drawn(range(1_000_000, 1_400_000))]))
    second = np.sort(
        np.concatenate([drawn(range(half, 2 * half)), drawn(range(1_400_000, 1_500_000))])
    )
    _, seen = rows.shares(drawn(range(count)), [rows.sketch(first), rows.sketch(second)])
    assert seen == pytest.approx(share, abs=0.01)
    if share in (0.0, 1.0):
        assert seen == share


def test_a_value_that_is_missing_is_not_one_that_is_empty(tmp_path: Path) -> None:
    row = samples.rows(2)[1]
    table = [row, {**row, "shop": None}, {**row, "score": None}, {**row, "hour": None}]
    assert len(set(hashes(tmp_path, table).tolist())) == 4
