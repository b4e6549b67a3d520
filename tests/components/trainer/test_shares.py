"""What each worker reads: together they see every row of an epoch once, whatever their number."""

from pathlib import Path

import pytest
import tensorflow as tf

from components.trainer.core import data
from components.trainer.core.batches import Feed
from components.trainer.core.data import InMemory, Rows, Source

ROWS, BATCH = 500, 36


def _source(folder: Path, is_sharded: bool) -> Source:
    """Rows whose label is their number."""
    numbers = tf.reshape(tf.range(2.0 * ROWS), [ROWS, 2])
    rows = Rows(numbers, tf.zeros([ROWS, 1], tf.int32), tf.range(float(ROWS)))
    if not is_sharded:
        return InMemory(rows)
    layout = data.Layout(2, 1, tf.float32)
    data.write_shards(str(folder), layout, [rows])
    found = data.open_shards(str(folder), layout, memory_mib=0.05)
    assert found and found.window < len(found.counts)
    return found


def _seen(feed: Feed, workers: int, replicas: int) -> list[list[int]]:
    """The rows of the steps of two epochs, as all replicas of all workers see them."""
    seen: list[list[int]] = [[] for _ in range(2 * feed.steps)]
    for worker in range(workers):
        context = tf.distribute.InputContext(workers, worker, workers * replicas)
        batches = feed._dataset(0, context).batch(replicas).take(len(seen)).as_numpy_iterator()
        for step, batch in zip(seen, batches, strict=True):
            assert batch.labels.shape == (replicas, BATCH // workers // replicas)
            step.extend(batch.labels[batch.weights > 0].astype(int).tolist())
    return seen


@pytest.fixture(scope="module", params=[False, True], ids=["in memory", "on disk"])
def feed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Feed:
    return Feed(_source(tmp_path_factory.mktemp("shards"), request.param), BATCH, seed=5)


@pytest.mark.parametrize(("workers", "replicas"), [(1, 2), (2, 1), (2, 2), (3, 1), (3, 2)])
def test_workers_share_the_rows_of_each_step(feed: Feed, workers: int, replicas: int) -> None:
    assert _seen(feed, workers, replicas) == _seen(feed, 1, 1)
