"""Transformed examples as tensors in memory."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

_RECORDS_A_PARSE = 4096


class Rows(NamedTuple):
    """Examples column-wise; the first dimension of each is the number of rows."""

    numbers: tf.Tensor
    """float32 [rows, numeric features]."""
    ids: tf.Tensor
    """int32 [rows, categorical features]."""
    labels: tf.Tensor
    """float32 [rows], or int64 class ids [rows] for multiclass."""

    def take(self, order: tf.Tensor) -> "Rows":
        """The rows at these positions, int64 [n]."""
        return Rows(*(tf.gather(column, order) for column in self))

    def slice(self, start: Any, stop: Any) -> "Rows":
        """Rows `start` to `stop`, without copying."""
        return Rows(*(column[start:stop] for column in self))


def load(patterns: Sequence[str], inputs: dict[str, Any]) -> Rows:
    """Reads all rows of the files, in an order that depends on nothing but the rows.

    Args:
      patterns: globs of gzipped TFRecord files of tf.Examples, one value for each feature.
      inputs: the feature spec (`components.features.model_inputs`).

    Raises:
      ValueError: the files hold no rows.
    """
    files = sorted(name for pattern in patterns for name in tf.io.gfile.glob(pattern))
    parts = list(_parsed(files, inputs))
    if not parts:
        raise ValueError(f"No examples in {', '.join(patterns)}.")
    order = tf.argsort(tf.concat([part[1] for part in parts], axis=0), stable=True)
    columns = zip(*(part[0] for part in parts), strict=True)
    return Rows(*(tf.gather(tf.concat(column, axis=0), order) for column in columns))


def _parsed(files: Sequence[str], inputs: dict[str, Any]) -> Iterator[tuple[Rows, tf.Tensor]]:
    """Yields some rows with the fingerprint of each, int64 [n].

    Beam writes rows in an order of its own each time; batches must be a function of data, seed and
    step. Rows with the same fingerprint are the same row.
    """
    numbers = [f["name"] for f in inputs["features"] if f["size"] is None]
    ids = [f["name"] for f in inputs["features"] if f["size"] is not None]
    label_type = tf.int64 if inputs["problem"] == "multiclass" else tf.float32
    spec = {name: tf.io.FixedLenFeature([], tf.float32) for name in numbers}
    spec |= {name: tf.io.FixedLenFeature([], tf.int64) for name in ids}
    spec[inputs["label"]] = tf.io.FixedLenFeature([], label_type)

    def parse(batch: tf.Tensor) -> tuple[Rows, tf.Tensor]:
        parsed = tf.io.parse_example(batch, spec)
        rows = tf.shape(batch)[0]
        columns = Rows(
            _stacked([parsed[name] for name in numbers], tf.float32, rows),
            _stacked([tf.cast(parsed[name], tf.int32) for name in ids], tf.int32, rows),
            parsed[inputs["label"]],
        )
        return columns, tf.bitcast(tf.fingerprint(batch), tf.int64)

    records = tf.data.TFRecordDataset(files, compression_type="GZIP")
    batches = records.batch(_RECORDS_A_PARSE).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    yield from batches.prefetch(tf.data.AUTOTUNE)


def _stacked(columns: list[tf.Tensor], dtype: tf.DType, rows: tf.Tensor) -> tf.Tensor:
    return tf.stack(columns, axis=1) if columns else tf.zeros([rows, 0], dtype)
