"""How far a span has moved, which of its rows are no news, and what is answered otherwise now."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from components.continued_evaluation import measures
from components.continued_evaluation.evidence import Moved
from components.continued_evaluation.settings import Drift
from components.registry.signature import types_in
from tests.components.evaluation import samples

COLUMNS = {"score": "FLOAT", "shop": "BYTES", "hour": "INT", "bought": "INT"}


def compare(folder: Path, now: Any, before: Any, drift: Drift) -> tuple[list[Moved], set[str]]:
    """How far rows are from others, by the statistics of both."""
    uris = (samples.statistics(folder / "now", test=now), samples.statistics(folder, test=before))
    files = (Path(made.uri, "Split-test", measures.STATISTICS_FILE) for made in uris)
    both = (measures.Statistics.FromString(file.read_bytes()) for file in files)
    return measures.distances(*both, drift, COLUMNS, "training")


def test_every_column_is_measured_by_what_fits_its_type(tmp_path: Path) -> None:
    before, now = samples.rows(2000), samples.rows(2000, seed=1)
    found, gone = compare(tmp_path, now, before, Drift(columns={"hour": 0.5}))
    assert gone == set()
    assert {m.column: (m.measure, m.limit) for m in found} == {
        "score": ("jensen_shannon_divergence", 0.6),
        "hour": ("jensen_shannon_divergence", 0.5),
        "bought": ("jensen_shannon_divergence", 0.6),
        "shop": ("infinity_norm", 0.3),
    }
    assert all(m.value < 0.15 for m in found)


def test_what_moves_or_is_gone_is_seen_and_what_is_ignored_is_not(tmp_path: Path) -> None:
    before = samples.rows(2000)
    now = [{**row, "score": None, "shop": "B"} for row in samples.rows(2000, seed=1)]
    found, gone = compare(tmp_path, now, before, Drift(ignore={"hour": "the night"}))
    assert gone == {"score"}
    values = {m.column: m.value for m in found}
    assert values.keys() == {"shop", "bought"}
    assert values["shop"] > 0.5
    assert values["bought"] < 0.01


def hashes(folder: Path, table: list[dict[str, Any]]) -> np.ndarray:
    uri = samples.schema(folder / "schema").uri
    return measures.hashes(samples.examples(folder / "data", test=table), types_in(uri))


def test_a_row_is_the_same_wherever_it_stands_and_what_is_missing_is_not_empty(
    tmp_path: Path,
) -> None:
    table = samples.rows(6000)
    table += [{**table[1], name: None} for name in ("shop", "score", "hour")]
    shuffled = random.Random(0).sample(table, len(table))
    first, second = hashes(tmp_path / "a", table), hashes(tmp_path / "b", shuffled)
    assert len({*first.tolist()}) == 6003
    assert first.tolist() == second.tolist()


DRAWN = np.random.default_rng(1).integers(0, 2**64, 1_500_000, np.uint64)


def drawn(rows: range) -> np.ndarray:
    """Hashes of numbered rows, sorted: as even as FarmHash's."""
    return np.sort(DRAWN[rows.start : rows.stop])


def test_small_spans_are_exact_and_what_is_kept_of_any_is_bounded() -> None:
    large, small = drawn(range(1_000_000)), drawn(range(300))
    twice = np.sort(np.concatenate([small, small]))
    assert measures.sketch(large).nbytes == 800_000
    assert measures.sketch(twice).tolist() == small.tolist()
    assert measures.shares(twice, []) == (0.5, 0.0)
    parts = [small, drawn(range(350, 380)), drawn(range(0))]
    assert measures.shares(drawn(range(200, 400)), parts) == pytest.approx((0.0, 130 / 200))
    assert measures.shares(np.zeros(0, np.uint64), parts) == (0.0, 0.0)


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_the_share_of_large_spans_is_estimated(share: float) -> None:
    """Half of what was seen is in one earlier span, half in another, smaller one."""
    count = 600_000
    half = int(count * share / 2)
    first = np.sort(np.concatenate([drawn(range(half)), drawn(range(1_000_000, 1_400_000))]))
    second = np.concatenate([drawn(range(half, 2 * half)), drawn(range(1_400_000, 1_500_000))])
    kept = [measures.sketch(first), measures.sketch(np.sort(second))]
    _, seen = measures.shares(drawn(range(count)), kept)
    assert seen == pytest.approx(share, abs=0.01 if 0 < share < 1 else 0)


NAN, INF = float("nan"), float("inf")
VALUES = st.sampled_from([0, 0.125, 0.25, 1, 2, 2.25, 1000, 1124, 1126, NAN, INF, -INF])
PAIRS = arrays.arrays(
    np.float32, st.tuples(st.just(2), st.integers(0, 5), st.integers(1, 3)), elements=VALUES
)


def is_same(before: float, now: float, tolerance: float) -> bool:
    if np.isfinite(before) and np.isfinite(now):
        return abs(before - now) <= tolerance * max(1, abs(now))
    return before == now or bool(np.isnan(before) and np.isnan(now))


@given(PAIRS, st.sampled_from([0.01, 0.125, 0.2]))
def test_a_row_is_answered_otherwise_if_a_value_is(pair: np.ndarray, tolerance: float) -> None:
    same = [
        all(is_same(b, n, tolerance) for b, n in zip(before, now, strict=True))
        for before, now in zip(*pair.tolist(), strict=True)
    ]
    with np.errstate(invalid="ignore"):
        off = np.abs(pair[0] - pair[1]).ravel()
    found = measures.compare(*pair, tolerance)
    assert found.rows == len(same)
    assert found.different == (same.count(False) / len(same) if same else 0)
    assert found.largest == max(off[np.isfinite(off)].tolist(), default=0)
