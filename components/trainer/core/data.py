"""Transformed examples as columns: in memory if they fit, otherwise in shards on disk."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import tensorflow as tf

from components.trainer.core import shards
from components.trainer.core.rows import Rows, RowsError

_RECORDS_A_PARSE = 4096
MIB = 1 << 20


class Source(Protocol):
    """Rows in shards, read a few at a time."""

    counts: list[int]
    """Rows by shard."""
    window: int
    """How many shards are in memory at a time; divides their number."""
    label_mean: float
    label_deviation: float

    def read(self, numbers: tf.Tensor) -> Rows:
        """The rows of these shards, int [window]. Runs in a graph."""


class InMemory:
    """All rows as one shard in memory."""

    window = 1

    def __init__(self, rows: Rows):
        """Takes the rows, in their order."""
        self._rows = rows
        self.counts = [int(rows.labels.shape[0])]
        mean, variance = tf.nn.moments(tf.cast(rows.labels, tf.float64), [0])
        self.label_mean, self.label_deviation = float(mean), float(variance) ** 0.5

    def read(self, numbers: tf.Tensor) -> Rows:
        """All rows."""
        return self._rows


def load(
    patterns: Sequence[str], inputs: dict[str, Any], memory_mib: float, scratch: str
) -> Source:
    """Reads the files once. In memory, the rows' order depends on nothing but the rows.

    Args:
      patterns: globs of gzipped TFRecord files of tf.Examples, one value for each feature.
      inputs: the feature spec (`components.features.model_inputs`).
      memory_mib: rows that take more are written to shards in `scratch`.
      scratch: a folder for them; shards that are there are taken for those of the same files.

    Raises:
      ValueError: the files hold no rows.
      RowsError: a row's label is not among the classes.
    """
    layout = shards.Layout.of(inputs)
    if found := shards.open_folder(scratch, layout, memory_mib):
        return found
    files = sorted(name for pattern in patterns for name in tf.io.gfile.glob(pattern))
    parts = _checked(_parsed(files, inputs), inputs["problem"])
    kept: deque[Rows] = deque()
    rows = 0
    for part in parts:
        kept.append(part)
        rows += int(part.labels.shape[0])
        if rows * layout.row_bytes > memory_mib * MIB:
            shards.write(scratch, layout, itertools.chain(_let_go(kept), parts))
            return load(patterns, inputs, memory_mib, scratch)
    if not kept:
        raise ValueError(f"No examples in {', '.join(patterns)}.")
    return InMemory(_sorted(kept, layout))


def _checked(parts: Iterable[Rows], problem: str) -> Iterator[Rows]:
    for part in parts:
        labels = part.labels
        known = (labels == 0) | (labels == 1) if problem == "binary" else labels >= 0
        unknown = int(tf.math.count_nonzero(~known))
        if unknown and problem != "regression":
            raise RowsError(
                f"{unknown} or more rows have a label that is not among the classes (0 and 1, if "
                "there is no features.label.classes). Name all classes, or fix the data."
            )
        yield part


def _let_go(parts: deque[Rows]) -> Iterator[Rows]:
    while parts:
        yield parts.popleft()


def _sorted(parts: Iterable[Rows], layout: shards.Layout) -> Rows:
    """The rows in the order of a hash of their values.

    Beam writes rows in an order of its own each time, and their features, too. Rows with the same
    hash are the same row.
    """
    rows = Rows(*(tf.concat(column, axis=0) for column in zip(*parts, strict=True)))
    fingerprints = tf.bitcast(tf.fingerprint(layout.pack(rows)), tf.int64)
    return rows.take(tf.argsort(fingerprints, stable=True))


def _parsed(files: Sequence[str], inputs: dict[str, Any]) -> Iterator[Rows]:
    """Yields some rows at a time."""
    numbers = [f["name"] for f in inputs["features"] if f["size"] is None]
    ids = [f["name"] for f in inputs["features"] if f["size"] is not None]
    multiclass = inputs["problem"] == "multiclass"
    spec = {name: tf.io.FixedLenFeature([], tf.float32) for name in numbers}
    spec |= {name: tf.io.FixedLenFeature([], tf.int64) for name in ids}
    spec[inputs["label"]] = tf.io.FixedLenFeature([], tf.int64 if multiclass else tf.float32)

    def parse(batch: tf.Tensor) -> Rows:
        parsed = tf.io.parse_example(batch, spec)
        rows = tf.shape(batch)[0]
        label = parsed[inputs["label"]]
        return Rows(
            _stacked([parsed[name] for name in numbers], tf.float32, rows),
            _stacked([tf.cast(parsed[name], tf.int32) for name in ids], tf.int32, rows),
            tf.cast(label, tf.int32) if multiclass else label,
        )

    records = tf.data.TFRecordDataset(files, compression_type="GZIP", buffer_size=MIB)
    batches = records.batch(_RECORDS_A_PARSE).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    yield from batches.prefetch(2)


def _stacked(columns: list[tf.Tensor], dtype: tf.DType, rows: tf.Tensor) -> tf.Tensor:
    return tf.stack(columns, axis=1) if columns else tf.zeros([rows, 0], dtype)
