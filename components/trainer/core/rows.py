"""Examples as columns."""

from typing import NamedTuple

import tensorflow as tf


class RowsError(Exception):
    """Rows that cannot be trained on; the message says why."""


class Rows(NamedTuple):
    """Examples column-wise; the first dimension of each is the number of rows."""

    numbers: tf.Tensor
    """float32 [rows, numeric features]."""
    ids: tf.Tensor
    """int32 [rows, categorical features]."""
    labels: tf.Tensor
    """float32 [rows], or int32 class ids [rows] for multiclass."""

    def take(self, order: tf.Tensor) -> "Rows":
        """The rows at these positions, int [n]."""
        return Rows(*(tf.gather(column, order) for column in self))
