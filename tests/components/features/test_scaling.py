"""Scaling of all numeric features at once, each as the table says."""

import numpy as np
import pytest
import tensorflow as tf

from components.features.scaling import scaled
from components.features.table import Numeric

HUGE = 3e38


def _scaled(values: list[float], moments: list[float], **settings: object) -> list[float]:
    feature = Numeric.model_validate({"kind": "numeric", "missing": "mean", **settings})
    column = tf.constant(values, tf.float32)
    edges = [tf.constant([0.0, 1.0, 3.0, 3.0])] if feature.scale == "quantile" else []
    (made,) = scaled([column], [feature], tf.constant([moments], tf.float32), edges)
    return made.numpy().tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"scale": "standard"}, [-1.0, 0.0, 1.0]),
        ({"scale": "minmax"}, [0.0, 0.5, 1.0]),
        ({"scale": "none"}, [2.0, 4.0, 6.0]),
        ({"scale": "none", "missing": -7.0}, [2.0, -7.0, 6.0]),
    ],
)
def test_each_scale_and_filling(settings: dict[str, object], expected: list[float]) -> None:
    assert _scaled([2.0, np.nan, 6.0], [4.0, 2.0, 2.0, 6.0], **settings) == expected


def test_a_constant_column_is_zero_and_the_largest_numbers_stay_finite() -> None:
    assert _scaled([5.0, np.nan], [5.0, 0.0, 5.0, 5.0]) == [0.0, 0.0]
    ends = _scaled([-HUGE, HUGE], [0.0, HUGE, -HUGE, HUGE], scale="minmax")
    assert ends == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("mean", 1.5), ("own", -1.0), ("error", -1.0), (0.5, 0.5)],
)
def test_a_position_is_how_many_bins_a_number_is_past(missing: object, expected: float) -> None:
    """Edges 0, 1, 3, of which the last is repeated: two bins, whatever lies beyond them."""
    values = [-5.0, 0.0, 0.25, 1.0, 2.0, 3.0, 99.0, np.nan]
    made = _scaled(values, [2.0, 1.0, 0.0, 3.0], scale="quantile", missing=missing)
    assert made == [0.0, 0.0, 0.25, 1.0, 1.5, 2.0, 2.0, expected]


def test_the_settings_of_quantiles_need_quantiles() -> None:
    feature = Numeric(kind="numeric", scale="minmax", bins=4, missing="own")
    assert [setting for setting, _ in feature.problems()] == ["bins", "missing"]
