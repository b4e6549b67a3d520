"""Scales all numeric features together: one by one, thousands would make a huge graph.

With `scale: quantile` a number becomes its position among quantiles, from which the network makes
piecewise linear inputs (Gorishniy et al. 2022, https://arxiv.org/abs/2203.05556).
"""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from components.features.table import Numeric, Prediction


def scaled(
    columns: Sequence[tf.Tensor],
    features: Sequence[Numeric | Prediction],
    moments: tf.Tensor,
    edges: Sequence[tf.Tensor],
) -> list[tf.Tensor]:
    """Fills gaps and scales, as each feature says.

    Args:
      columns: float32 [batch] each, NaN where missing.
      features: one for each column.
      moments: float32 [columns, 4]: mean, standard deviation, minimum, maximum.
      edges: float32 [bins + 1] for each feature with `scale: quantile`, in their order.

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
    outputs = tf.unstack(made, num=len(features), axis=1)
    by_quantile = [i for i, feature in enumerate(features) if feature.scale == "quantile"]
    if by_quantile:
        filled = tf.cast(tf.gather(numbers, by_quantile, axis=1), tf.float32)
        own = np.array([features[i].missing in ("own", "error") for i in by_quantile])
        absent = tf.math.is_nan(tf.stack([columns[i] for i in by_quantile], axis=1)) & own
        placed = tf.where(absent, -1.0, positions(filled, edges))
        for i, column in zip(by_quantile, tf.unstack(placed, len(by_quantile), 1), strict=True):
            outputs[i] = column
    return outputs


def positions(numbers: tf.Tensor, edges: Sequence[tf.Tensor]) -> tf.Tensor:
    """How many bins each number is past.

    Args:
      numbers: float32 [batch, columns], none of them NaN.
      edges: float32 [bins + 1] for each column, increasing; behind the highest one it repeats.

    Returns:
      float32 [batch, columns]: 0 below the lowest edge, the number of bins above the highest one,
      and between two edges linear.
    """
    sizes: np.ndarray = np.array([edge.shape[0] for edge in edges])
    most = sizes.max()
    places = np.minimum(np.arange(most), sizes[:, None] - 1)  # the highest edge is repeated
    starts = np.cumsum(sizes) - sizes
    table = tf.cast(tf.gather(tf.concat(edges, axis=0), starts[:, None] + places), tf.float64)
    values = tf.transpose(tf.cast(numbers, tf.float64))
    passed = tf.searchsorted(table, values, side="right")
    bins = tf.clip_by_value(passed - 1, 0, most - 2)
    low, high = (tf.gather(table, bins + i, batch_dims=1) for i in (0, 1))
    inside = tf.clip_by_value(tf.math.divide_no_nan(values - low, high - low), 0.0, 1.0)
    different = tf.reduce_sum(tf.cast(table[:, 1:] > table[:, :-1], tf.float64), axis=1)
    place = tf.minimum(tf.cast(bins, tf.float64) + inside, different[:, None])
    return tf.cast(tf.transpose(place), tf.float32)


def _given(feature: Numeric | Prediction) -> float:
    """What the table says stands for a missing value; NaN for the mean."""
    return feature.missing if isinstance(feature.missing, float) else math.nan
