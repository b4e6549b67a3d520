"""Random numbers that are the same wherever they are drawn.

A plain step and a compiled one draw different numbers from the same seed: XLA has a generator of
its own. So that the rest can be compared, both get numbers that are not random.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import tensorflow as tf

# Not public. All seeded random numbers of TensorFlow and Keras come through here; a test fails when
# it moves.
from tensorflow.python.ops import gen_stateless_random_ops_v2

_GOLDEN = 0.618034


def _spread(shape: Any, dtype: tf.DType) -> tf.Tensor:
    """Numbers spread evenly over 0 to 1."""
    count = tf.range(tf.reduce_prod(tf.convert_to_tensor(shape, tf.int32)))
    numbers = tf.math.floormod(tf.cast(count, tf.float32) * _GOLDEN, 1.0)
    return tf.reshape(tf.cast(numbers, dtype), shape)


def _uniform(shape: Any, key: Any, counter: Any, alg: Any, dtype: Any, **_: Any) -> tf.Tensor:
    return _spread(shape, dtype)


def _normal(shape: Any, key: Any, counter: Any, alg: Any, dtype: Any, **_: Any) -> tf.Tensor:
    return 4 * _spread(shape, dtype) - 2


def _integers(
    shape: Any, key: Any, counter: Any, alg: Any, minval: Any, maxval: Any, **_: Any
) -> tf.Tensor:
    span = tf.cast(maxval - minval, tf.float32)
    return minval + tf.cast(_spread(shape, tf.float32) * span, minval.dtype)


_STAND_INS: dict[str, Callable[..., tf.Tensor]] = {
    "stateless_random_uniform_v2": _uniform,
    "stateless_random_normal_v2": _normal,
    "stateless_truncated_normal_v2": _normal,
    "stateless_random_uniform_int_v2": _integers,
}


@contextmanager
def same_draws() -> Iterator[None]:
    """What is traced within draws numbers that are not random where a seeded generator is asked."""
    with ExitStack() as stack:
        for name, stand_in in _STAND_INS.items():
            stack.enter_context(mock.patch.object(gen_stateless_random_ops_v2, name, stand_in))
        yield
