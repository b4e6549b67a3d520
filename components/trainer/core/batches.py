"""Batches as a pure function of (rows, seed, step), the same for every strategy.

An epoch reads the shards in a seeded order, shuffles each window of them, and cuts the rows into
global batches; the last one is filled up with rows of weight 0, so that all have one static shape.
Each replica gets its part of each. A training that goes on at step N skips whole shards by their
counts.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from components.trainer.core.data import Rows, Source


class Batch(NamedTuple):
    """The part of a global batch that one replica gets; all of static shape."""

    numbers: tf.Tensor
    """float32 [b, numeric features]."""
    ids: tf.Tensor
    """int32 [b, categorical features]."""
    labels: tf.Tensor
    """As in `Rows`: [b], or [b, classes]."""
    weights: tf.Tensor
    """float32 [b]: 0 for rows that only fill the batch, otherwise 1."""


class Feed(NamedTuple):
    """How rows are cut into batches."""

    source: Source
    batch: int
    """The global batch size."""
    seed: int | None
    """Of the order of rows; None keeps them as they are."""

    @property
    def rows(self) -> int:
        """Rows of a pass."""
        return sum(self.source.counts)

    @property
    def steps(self) -> int:
        """Batches of a pass."""
        return -(-self.rows // self.batch)

    def real_rows(self, step: tf.Tensor) -> tf.Tensor:
        """How many rows of the global batch at `step` are no filling, int64 scalar."""
        left = self.rows - tf.math.floormod(tf.cast(step, tf.int64), self.steps) * self.batch
        return tf.minimum(left, self.batch)

    def distributed(self, strategy: tf.distribute.Strategy, step: int) -> Any:
        """The strategy's dataset of `Batch`es from `step` on, without an end."""
        return strategy.distribute_datasets_from_function(lambda c: self._dataset(step, c))

    @tf.autograph.experimental.do_not_convert
    def _dataset(self, step: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        first_epoch, step_in_epoch = divmod(step, self.steps)

        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            skip = tf.where(number == first_epoch, step_in_epoch * self.batch, 0)
            return self._windows(number, tf.cast(skip, tf.int64)).rebatch(self.batch)

        batches = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch).map(self._filled)
        local = context.num_replicas_in_sync // context.num_input_pipelines
        if context.num_replicas_in_sync > 1:
            batches = batches.map(lambda batch: _part(batch, local, context))
        if local > 1:
            batches = batches.unbatch()
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        return batches.apply(endless).prefetch(4 * local)

    def _windows(self, epoch: tf.Tensor, skip: tf.Tensor) -> tf.data.Dataset:
        """The windows of an epoch from its row `skip` on, as `Rows` each."""
        counts = tf.constant(self.source.counts, tf.int64)
        order = self._shuffled(len(self.source.counts), -1 - epoch)
        windows = tf.reshape(order, [-1, self.source.window])
        ends = tf.cumsum(tf.reduce_sum(tf.gather(counts, windows), axis=1))
        first = tf.searchsorted(ends, skip[None], side="right")[0]
        before = tf.where(first > 0, ends[tf.maximum(first - 1, 0)], 0)
        total = len(self.source.counts) // self.source.window

        def read(number: tf.Tensor) -> Rows:
            rows = self.source.read(windows[number])
            order = self._shuffled(tf.shape(rows.labels)[0], epoch * total + number)
            skipped = tf.where(tf.equal(number, tf.cast(first, tf.int64)), skip - before, 0)
            return rows.take(order[skipped:])

        numbers = tf.data.Dataset.range(tf.cast(first, tf.int64), total)
        read_ahead = 1 if total > 1 else 0
        return numbers.map(read).prefetch(read_ahead)

    def _shuffled(self, count: Any, number: tf.Tensor) -> tf.Tensor:
        """The positions 0 to before `count` in their order number `number`."""
        if self.seed is None:
            return tf.range(count)
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(number, tf.int64)])
        return tf.random.experimental.stateless_shuffle(tf.range(count), seed=seed)

    def _filled(self, rows: Rows) -> Batch:
        """A whole batch; rows of the same batch fill it up."""
        count = tf.shape(rows.labels)[0]
        positions = tf.range(self.batch)
        weights = tf.cast(positions < count, tf.float32)
        return Batch(*rows.take(positions % count), weights)


def _part(batch: Batch, local: int, context: tf.distribute.InputContext) -> Batch:
    """A worker's part of a global batch; [replicas, b, ...] if it has several."""
    size = batch.weights.shape[0] // context.num_input_pipelines
    start = context.input_pipeline_id * size
    parts = [column[start : start + size] for column in batch]
    if local == 1:
        return Batch(*parts)
    return Batch(*(tf.reshape(p, [local, size // local, *p.shape[1:]]) for p in parts))
