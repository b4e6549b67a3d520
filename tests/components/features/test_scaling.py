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
    (made,) = scaled([column], [feature], tf.constant([moments], tf.float32))
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
