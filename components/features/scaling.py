"""Scales all numeric features together: one by one, thousands would make a huge graph."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from components.features.table import Numeric


def scaled(
    columns: Sequence[tf.Tensor], features: Sequence[Numeric], moments: tf.Tensor
) -> list[tf.Tensor]:
    """Fills gaps and scales, as each feature says.

    Args:
      columns: float32 [batch] each, NaN where missing.
      features: one for each column.
      moments: float32 [columns, 4]: mean, standard deviation, minimum, maximum.

    Returns:
      float32 [batch] each.
    """
    if not features:
        return []
    # float64, since the difference of two large float32 may be none.
    mean, deviation, low, high = tf.unstack(tf.cast(moments, tf.float64), num=4, axis=1)
    scale = np.array([feature.scale for feature in features])
    start = tf.where(scale == "standard", mean, tf.where(scale == "minmax", low, 0.0))
    width = tf.where(scale == "standard", deviation, tf.where(scale == "minmax", high - low, 1.0))
    given = np.array([_given(feature) for feature in features])
    fill = tf.where(np.isnan(given), mean, given)
    numbers = tf.cast(tf.stack(columns, axis=1), tf.float64)
    numbers = tf.where(tf.math.is_nan(numbers), fill, numbers)
    made = tf.cast(tf.math.divide_no_nan(numbers - start, width), tf.float32)
    return tf.unstack(made, num=len(features), axis=1)


def _given(feature: Numeric) -> float:
    """What the table says stands for a missing value; NaN for the mean."""
    return feature.missing if isinstance(feature.missing, float) else math.nan
