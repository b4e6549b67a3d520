"""Rows on disk, for data that does not fit into memory: shards of fixed-width binary rows.

A row's shard is drawn from its number in the files, not from its values: rows that are equal are
spread, and each shard is a random part of the data, so that a few shards shuffled together (a
window) are as good as a shuffle of all.
"""

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

import tensorflow as tf

from components.trainer.core.rows import Rows

SHARDS = 256
_COUNTS = "counts.json"
_WINDOWS_IN_MEMORY = 8
"""Reading a window needs some copies of it, and the next one is read ahead."""


class Layout(NamedTuple):
    """A row's bytes: float32 numbers, int32 ids, and the label, four bytes each."""

    numbers: int
    ids: int
    label: tf.DType

    @classmethod
    def of(cls, inputs: dict[str, Any]) -> "Layout":
        """The layout for a feature spec."""
        ids = sum(f["size"] is not None for f in inputs["features"])
        label = tf.int32 if inputs["problem"] == "multiclass" else tf.float32
        return cls(len(inputs["features"]) - ids, ids, label)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * (self.numbers + self.ids + 1)

    def pack(self, rows: Rows) -> tf.Tensor:
        """Rows as int32 [n, columns and label]."""
        columns = (rows.numbers, rows.ids, rows.labels[:, None])
        return tf.concat([tf.bitcast(column, tf.int32) for column in columns], axis=1)

    def unpack(self, data: tf.Tensor) -> Rows:
        """Rows from the bytes of some shards, string scalar."""
        words = tf.reshape(tf.io.decode_raw(data, tf.int32), [-1, self.row_bytes // 4])
        numbers, ids, label = tf.split(words, [self.numbers, self.ids, 1], axis=1)
        return Rows(tf.bitcast(numbers, tf.float32), ids, tf.bitcast(label[:, 0], self.label))


class Shards:
    """Rows in a folder of shards."""

    def __init__(self, folder: str, layout: Layout, found: dict[str, Any], memory_mib: float):
        """Takes the folder and what its `counts.json` says."""
        self._layout = layout
        self._files = [_file(folder, number) for number in range(SHARDS)]
        self.counts: list[int] = found["counts"]
        self.label_mean: float = found["label_mean"]
        self.label_deviation: float = found["label_deviation"]
        limit = memory_mib * (1 << 20) / _WINDOWS_IN_MEMORY
        self.window = SHARDS
        while self.window > 1 and self._bytes_a_window() > limit:
            self.window //= 2

    def _bytes_a_window(self) -> float:
        return sum(self.counts) * self._layout.row_bytes * self.window / SHARDS

    def read(self, numbers: tf.Tensor) -> Rows:
        """The rows of these shards, int [window]."""
        names = tf.gather(tf.constant(self._files), numbers)
        return self._layout.unpack(tf.strings.reduce_join(tf.map_fn(tf.io.read_file, names)))


def open_folder(folder: str, layout: Layout, memory_mib: float) -> Shards | None:
    """The shards of a folder, or None if they are not all there."""
    try:
        with open(os.path.join(folder, _COUNTS), encoding="utf-8") as file:
            found = json.load(file)
        sizes = [os.path.getsize(_file(folder, number)) for number in range(SHARDS)]
    except (OSError, ValueError):
        return None
    if sizes != [count * layout.row_bytes for count in found["counts"]]:
        return None
    return Shards(folder, layout, found, memory_mib)


def write(folder: str, layout: Layout, parts: Iterable[Rows]) -> None:
    """Writes rows; they are complete when `counts.json` is there."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    counts, labels, squares = [0] * SHARDS, 0.0, 0.0
    with ExitStack() as stack:
        names = [_file(folder, number) for number in range(SHARDS)]
        files = [stack.enter_context(open(name, "wb", buffering=1 << 16)) for name in names]
        for rows in parts:
            _append(files, counts, layout.pack(rows))
            label = tf.cast(rows.labels, tf.float64)
            labels += float(tf.reduce_sum(label))
            squares += float(tf.reduce_sum(label * label))
    mean = labels / sum(counts)
    deviation = max(0.0, squares / sum(counts) - mean * mean) ** 0.5
    found = {"counts": counts, "label_mean": mean, "label_deviation": deviation}
    temporary = os.path.join(folder, f".tmp-{_COUNTS}")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(found, file)
    os.rename(temporary, os.path.join(folder, _COUNTS))


def _append(files: list[Any], counts: list[int], packed: tf.Tensor) -> None:
    seed = tf.constant([sum(counts), 0], tf.int64)  # the number of the first row
    shard = tf.random.stateless_uniform([packed.shape[0]], seed, 0, SHARDS, tf.int32)
    by_shard = tf.gather(packed, tf.argsort(shard, stable=True)).numpy()
    start = 0
    for number, count in enumerate(tf.math.bincount(shard, minlength=SHARDS).numpy().tolist()):
        files[number].write(by_shard[start : start + count].data)
        counts[number] += count
        start += count


def _file(folder: str, number: int) -> str:
    return os.path.join(folder, f"rows-{number:05d}-of-{SHARDS:05d}")
