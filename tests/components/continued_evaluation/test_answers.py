import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from components.continued_evaluation.answers import compare
from components.continued_evaluation.evidence import Answers

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("logged", "recomputed", "different", "largest"),
    [
        ([[0.5], [0.25]], [[0.5], [0.25]], 0, 0),
        ([[0.5], [0.25]], [[0.5625], [0.25]], 0, 0.0625),  # the tolerance itself
        ([[0.5], [0.25]], [[0.5], [0.3125001]], 0.5, 0.0625001),
        ([[0.5, 0.5], [1, 0]], [[0, 1], [0, 1]], 1, 1),
        ([[0.5, 0.5], [1, 0]], [[0.5, 0.5], [1, 0.5]], 0.5, 0.5),
        ([[1000.0]], [[1062.0]], 0, 62),  # of large values the tolerance is a fraction
        ([[1000.0]], [[1068.0]], 1, 68),
        ([[NAN], [INF], [-INF]], [[NAN], [INF], [-INF]], 0, 0),
        ([[NAN], [0], [INF], [0]], [[0], [NAN], [-INF], [INF]], 1, 0),
        ([[INF, 0.25]], [[0, 0.5]], 1, 0.25),
    ],
)
def test_a_row_is_different_if_a_value_is(
    logged: list[list[float]], recomputed: list[list[float]], different: float, largest: float
) -> None:
    found = compare(np.array(logged, np.float32), np.array(recomputed, np.float32), 0.0625)
    assert (found.rows, found.different) == (len(logged), different)
    assert found.largest == pytest.approx(largest)
    assert Answers.model_validate_json(found.model_dump_json()) == found


def test_no_rows_are_no_difference() -> None:
    nothing = np.zeros((0, 3), np.float32)
    assert compare(nothing, nothing, 0.1) == Answers(rows=0, different=0, largest=0)


def test_other_shapes_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1\) predictions are logged, \(2, 3\) recomputed"):
        compare(np.zeros((2, 1), np.float32), np.zeros((2, 3), np.float32), 0.1)


PAIRS = arrays.arrays(
    np.float32,
    st.tuples(st.just(2), st.integers(1, 5), st.integers(1, 3)),
    elements=st.sampled_from([0, 0.125, 0.25, 1, 2, 2.25, 1e6, NAN, INF, -INF]),
)


def is_same(before: float, now: float, tolerance: float) -> bool:
    if math.isfinite(before) and math.isfinite(now):
        return abs(before - now) <= tolerance * max(1, abs(now))
    return before == now or (math.isnan(before) and math.isnan(now))


@given(PAIRS, st.sampled_from([0.01, 0.125, 0.2]))
def test_the_comparison_is_that_of_a_loop(pair: np.ndarray, tolerance: float) -> None:
    logged, recomputed = pair.tolist()
    same = [
        all(is_same(b, n, tolerance) for b, n in zip(before, now, strict=True))
        for before, now in zip(logged, recomputed, strict=True)
    ]
    with np.errstate(invalid="ignore"):
        off = np.abs(pair[0] - pair[1]).ravel().tolist()
    found = compare(*pair, tolerance)
    assert found.different == same.count(False) / len(same)
    assert found.largest == max((each for each in off if math.isfinite(each)), default=0)
