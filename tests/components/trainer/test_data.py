"""Loading transformed examples: every row, in an order that no file decides, within the memory."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core.batches import Batch, Feed
from components.trainer.core.data import (
    SHARDS,
    InMemory,
    Rows,
    RowsError,
    Shards,
    Source,
    fingerprint,
    load,
)
from tests.components.trainer import small_training as small

ROWS = 3000
ROW = 20
TINY = ROWS * ROW / 4 / (1 << 20)
"""MiB: a quarter of the rows."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files a-0 with all rows, and b-0 to b-2 with the same ones in other orders."""
    folder = tmp_path_factory.mktemp("examples")
    rows = small.columns(ROWS)
    small.write_examples(folder / "a-0.gz", rows)
    shuffled = np.random.default_rng(1).permutation(ROWS)
    for shard in range(3):
        small.write_examples(folder / f"b-{shard}.gz", rows.take(shuffled[shard::3]), reverse=True)
    return folder


def _load(folder: Path, name: str, scratch: Path, memory: float) -> Source:
    return load([str(folder / f"{name}-*")], small.INPUTS, memory, str(scratch))


def _as_set(parts: list[Rows] | list[Batch]) -> set[tuple[float, ...]]:
    return {
        (*numbers, *ids, label)
        for part in parts
        for numbers, ids, label in zip(
            part.numbers.numpy().tolist(),
            part.ids.numpy().tolist(),
            part.labels.numpy().tolist(),
            strict=True,
        )
    }


def test_rows_whose_label_is_no_class_are_refused(tmp_path: Path) -> None:
    rows = small.columns(50)
    labels = tf.concat([[-1.0, 2.0], rows.labels[2:]], axis=0)
    small.write_examples(tmp_path / "a-0.gz", rows._replace(labels=labels))
    with pytest.raises(RowsError, match="2 or more rows have a label that is not among"):
        _load(tmp_path, "a", tmp_path / "scratch", 100.0)


def test_fingerprint_is_of_the_rows_alone(folder: Path, tmp_path: Path) -> None:
    """Made again by Beam, the same rows are in other files, and in another order."""
    one, many = (fingerprint([str(folder / f"{name}-*")], small.INPUTS) for name in "ab")
    assert one == many
    rows = small.columns(ROWS)
    others = {
        "a row less": rows.take(tf.range(ROWS - 1)),
        "a row twice": rows.take(tf.concat([[0], tf.range(ROWS)], 0)),
        "another value": rows._replace(numbers=rows.numbers + np.eye(ROWS, 2, -5) * 1e-6),
        "values of two rows changed places": rows._replace(
            labels=tf.reverse(rows.labels, axis=[0])
        ),
    }
    for name, other in others.items():
        small.write_examples(tmp_path / f"{name}.gz", other)
        assert fingerprint([str(tmp_path / f"{name}.gz")], small.INPUTS) != one, name


def test_order_does_not_depend_on_the_files(folder: Path, tmp_path: Path) -> None:
    one, many = (_load(folder, name, tmp_path / name, 100.0).read([0]) for name in "ab")
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)
    assert _as_set([one]) == _as_set([small.columns(ROWS)])


def test_shards_of_the_same_files_are_the_same(folder: Path, tmp_path: Path) -> None:
    first, second = (_load(folder, "b", tmp_path / name, TINY) for name in ("one", "two"))
    windows = tf.reshape(tf.range(SHARDS), [-1, first.window])
    for window in windows:
        for a, b in zip(first.read(window), second.read(window), strict=True):
            np.testing.assert_array_equal(a, b)
    assert _as_set([first.read(window) for window in windows]) == _as_set([small.columns(ROWS)])


def test_equal_rows_are_spread_over_the_shards(tmp_path: Path) -> None:
    """Else a window would hold one kind of row, and more of it than the memory is for."""
    row = small.columns(1)
    rows = row.take(tf.zeros([ROWS], tf.int32))
    small.write_examples(tmp_path / "a-0.gz", rows)
    source = _load(tmp_path, "a", tmp_path / "s", TINY)
    assert sum(source.counts) == ROWS
    assert max(source.counts) < 6 * ROWS / SHARDS


def test_more_rows_than_fit_are_read_from_shards(folder: Path, tmp_path: Path) -> None:
    kept, spilled = (_load(folder, "a", tmp_path / "s", memory) for memory in (100.0, TINY))
    assert isinstance(kept, InMemory)
    assert isinstance(spilled, Shards)
    assert sum(spilled.counts) == ROWS
    assert len(spilled.counts) == SHARDS
    assert spilled.window * ROW * ROWS / SHARDS <= TINY * (1 << 20)
    for fact in ("mean", "deviation", "quantiles", "counts"):
        assert spilled.label[fact] == pytest.approx(kept.label[fact])


def test_whole_shards_are_used_again_and_others_are_not(folder: Path, tmp_path: Path) -> None:
    first = _load(folder, "a", tmp_path / "s", TINY)
    again = _load(tmp_path / "no such folder", "a", tmp_path / "s", TINY)
    assert again.counts == first.counts
    some = next((tmp_path / "s").glob("rows-*"))
    some.write_bytes(some.read_bytes()[:-5])
    with pytest.raises(ValueError, match="No examples in"):
        _load(tmp_path / "no such folder", "a", tmp_path / "s", TINY)


@pytest.mark.parametrize("memory", [100.0, TINY])
class TestBatches:
    """Batches of both kinds of source are a pure function of (rows, seed, step)."""

    @pytest.fixture
    def feed(self, folder: Path, tmp_path: Path, memory: float) -> Feed:
        return Feed(_load(folder, "a", tmp_path / "s", memory), 128, 7)

    def _take(self, feed: Feed, step: int, count: int) -> list[Batch]:
        batches = iter(feed.distributed(tf.distribute.get_strategy(), step))
        return [next(batches) for _ in range(count)]

    def test_every_row_of_an_epoch_comes_once(self, feed: Feed) -> None:
        assert feed.steps == 24
        for epoch in (0, 1):
            batches = self._take(feed, epoch * 24, 24)
            real = [Rows(*b[:3]).take(tf.where(b.weights > 0)[:, 0]) for b in batches]
            assert sum(int(part.labels.shape[0]) for part in real) == ROWS
            assert _as_set(real) == _as_set([small.columns(ROWS)])
            assert float(tf.reduce_sum(batches[-1].weights)) == ROWS - 23 * 128

    def test_shapes_are_static(self, feed: Feed) -> None:
        element = feed.distributed(tf.distribute.get_strategy(), 0).element_spec
        assert [tuple(spec.shape) for spec in element] == [(128, 2), (128, 2), (128,), (128,)]

    @pytest.mark.parametrize("step", [5, 23, 71])
    def test_from_any_step_on_the_same_batches_come(self, feed: Feed, step: int) -> None:
        expected = self._take(feed, 0, step + 3)[step:]
        for a, b in zip(expected, self._take(feed, step, 3), strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)

    def test_epochs_and_seeds_have_orders_of_their_own(self, feed: Feed) -> None:
        first = self._take(feed, 0, 1)[0].numbers.numpy()
        assert not np.array_equal(first, self._take(feed, 24, 1)[0].numbers.numpy())
        other = self._take(feed._replace(seed=8), 0, 1)[0].numbers.numpy()
        assert not np.array_equal(first, other)


def test_resume_reads_no_shard_that_it_skips(folder: Path, tmp_path: Path) -> None:
    source = _load(folder, "a", tmp_path / "s", TINY)
    feed = Feed(source, 100, 7)
    last = Feed(source, 100, 7).distributed(tf.distribute.get_strategy(), 29)
    expected = [tensor.numpy() for tensor in next(iter(last))]
    order = feed._shuffled(SHARDS, tf.constant(-1, tf.int64)).numpy().tolist()
    for number in order[: SHARDS // 2]:
        (tmp_path / "s" / f"rows-{number:05d}-of-{SHARDS:05d}").unlink()
    again = feed.distributed(tf.distribute.get_strategy(), 29)
    for a, b in zip(expected, next(iter(again)), strict=True):
        np.testing.assert_array_equal(a, b)
