"""Transformed examples as columns: in memory if they fit, otherwise in shards on disk.

In memory, the rows are put in the order of a hash of their values, so that neither the files nor
the order in them matters: Beam writes both anew each time. Beyond memory they go to shards of
fixed-width binary rows. A row's shard is drawn from its number in the files, not from its values:
rows that are equal are spread, and each shard is a random part of the data, so that a few shards
shuffled together (a window) are as good as a shuffle of all.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import tensorflow as tf

from components import files

MIB = 1 << 20
SHARDS = 256
_COUNTS = "counts.json"
_RECORDS_A_PARSE = 4096
_WINDOWS_IN_MEMORY = 8
"""Reading a window needs some copies of it, and the next one is read ahead."""


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


class InMemory:
    """All rows as one shard in memory.

    Attributes:
      counts: rows by shard.
      window: how many shards are in memory at a time; divides their number.
      order: stands for the order of the rows, as far as their values do not decide it.
      label_mean: of all rows.
      label_deviation: of all rows.
    """

    window = 1
    order = ""

    def __init__(self, rows: Rows):
        """Takes the rows, in their order."""
        self._rows = rows
        self.counts = [int(rows.labels.shape[0])]
        mean, variance = tf.nn.moments(tf.cast(rows.labels, tf.float64), [0])
        self.label_mean, self.label_deviation = float(mean), float(variance) ** 0.5

    def read(self, numbers: tf.Tensor) -> Rows:
        """All rows."""
        return self._rows


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
    """Rows in a folder of shards; with the attributes of `InMemory`."""

    def __init__(self, folder: str, layout: Layout, written: dict[str, Any], memory_mib: float):
        """Takes the folder and what its `counts.json` says."""
        self._layout = layout
        self._files = [_file(folder, number) for number in range(SHARDS)]
        self.counts: list[int] = written["counts"]
        self.order: str = written["order"]
        self.label_mean: float = written["label_mean"]
        self.label_deviation: float = written["label_deviation"]
        total, limit = sum(self.counts) * layout.row_bytes, memory_mib * MIB / _WINDOWS_IN_MEMORY
        self.window = SHARDS
        while self.window > 1 and total * self.window / SHARDS > limit:
            self.window //= 2

    def read(self, numbers: tf.Tensor) -> Rows:
        """The rows of these shards, int [window]."""
        names = tf.gather(tf.constant(self._files), numbers)
        return self._layout.unpack(tf.strings.reduce_join(tf.map_fn(tf.io.read_file, names)))


Source = InMemory | Shards
"""Rows in shards, read a few at a time."""


def fingerprint(patterns: Sequence[str], inputs: dict[str, Any]) -> str:
    """A hash of the rows as a training sees them, whatever their order and their files.

    It is the sum of two 64-bit hashes of each row. (The bytes of the files won't do: protobuf
    writes a map's entries in another order in each process, and Beam its shards.)

    Args:
      patterns: globs of gzipped TFRecord files of tf.Examples, one value for each feature.
      inputs: the feature spec (`components.features.model_inputs`).
    """
    layout = Layout.of(inputs)
    count, sums = 0, tf.zeros([2], tf.int64)
    for rows in _parsed(_matching(patterns), inputs):
        packed = layout.pack(rows)
        first = tf.bitcast(tf.fingerprint(packed), tf.int64)
        salted = tf.concat([tf.bitcast(first, tf.int32), packed], axis=1)
        second = tf.bitcast(tf.fingerprint(salted), tf.int64)
        sums += tf.reduce_sum(tf.stack([first, second]), axis=1)
        count += int(packed.shape[0])
    return hashlib.sha256(f"{count} {sums.numpy().tolist()}".encode()).hexdigest()


def load(
    patterns: Sequence[str], inputs: dict[str, Any], memory_mib: float, scratch: str
) -> Source:
    """Reads the files once. In memory, the rows' order depends on nothing but the rows.

    Args:
      patterns: globs of gzipped TFRecord files of tf.Examples, one value for each feature.
      inputs: the feature spec (`components.features.model_inputs`).
      memory_mib: rows that take more are written to shards in `scratch`.
      scratch: a folder for them; shards that are there are taken for those of the same rows.

    Raises:
      ValueError: the files hold no rows.
      RowsError: a row's label is not among the classes.
    """
    layout = Layout.of(inputs)
    if found := open_shards(scratch, layout, memory_mib):
        return found
    parts = _checked(_parsed(_matching(patterns), inputs), inputs["problem"])
    kept: deque[Rows] = deque()
    count = 0
    for part in parts:
        kept.append(part)
        count += int(part.labels.shape[0])
        if count * layout.row_bytes > memory_mib * MIB:
            read = (kept.popleft() for _ in range(len(kept)))  # none is kept longer than needed
            write_shards(scratch, layout, itertools.chain(read, parts))
            return load(patterns, inputs, memory_mib, scratch)
    if not kept:
        raise ValueError(f"No examples in {', '.join(patterns)}.")
    return InMemory(_sorted(kept, layout))


def _matching(patterns: Sequence[str]) -> list[str]:
    return sorted(name for pattern in patterns for name in tf.io.gfile.glob(pattern))


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


def _sorted(parts: Iterable[Rows], layout: Layout) -> Rows:
    """The rows in the order of a hash of their values; rows with the same hash are the same row."""
    rows = Rows(*(tf.concat(column, axis=0) for column in zip(*parts, strict=True)))
    hashes = tf.bitcast(tf.fingerprint(layout.pack(rows)), tf.int64)
    return rows.take(tf.argsort(hashes, stable=True))


def _parsed(names: Sequence[str], inputs: dict[str, Any]) -> Iterator[Rows]:
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

    records = tf.data.TFRecordDataset(names, compression_type="GZIP", buffer_size=MIB)
    batches = records.batch(_RECORDS_A_PARSE).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    yield from batches.prefetch(2)


def _stacked(columns: list[tf.Tensor], dtype: tf.DType, rows: tf.Tensor) -> tf.Tensor:
    return tf.stack(columns, axis=1) if columns else tf.zeros([rows, 0], dtype)


def open_shards(folder: str, layout: Layout, memory_mib: float) -> Shards | None:
    """The shards of a folder, or None if they are not all there."""
    try:
        with open(os.path.join(folder, _COUNTS), encoding="utf-8") as file:
            written = json.load(file)
        sizes = [os.path.getsize(_file(folder, number)) for number in range(SHARDS)]
        if sizes != [count * layout.row_bytes for count in written["counts"]]:
            return None
        return Shards(folder, layout, written, memory_mib)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_shards(folder: str, layout: Layout, parts: Iterable[Rows]) -> None:
    """Writes rows; they are complete when `counts.json` is there."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    counts, labels, squares, order = [0] * SHARDS, 0.0, 0.0, hashlib.sha256()
    with ExitStack() as stack:
        names = [_file(folder, number) for number in range(SHARDS)]
        opened = [stack.enter_context(open(name, "wb", buffering=1 << 16)) for name in names]
        for rows in parts:
            packed = layout.pack(rows)
            order.update(packed.numpy().data)
            _append(opened, counts, packed)
            label = tf.cast(rows.labels, tf.float64)
            labels += float(tf.reduce_sum(label))
            squares += float(tf.reduce_sum(label * label))
    mean = labels / sum(counts)
    deviation = max(0.0, squares / sum(counts) - mean * mean) ** 0.5
    written = {"label_mean": mean, "label_deviation": deviation, "order": order.hexdigest()}
    files.write_atomically(os.path.join(folder, _COUNTS), json.dumps({"counts": counts} | written))


def _append(opened: list[Any], counts: list[int], packed: tf.Tensor) -> None:
    seed = tf.constant([sum(counts), 0], tf.int64)  # the number of the first row
    shard = tf.random.stateless_uniform([packed.shape[0]], seed, 0, SHARDS, tf.int32)
    by_shard = tf.gather(packed, tf.argsort(shard, stable=True)).numpy()
    start = 0
    for number, count in enumerate(tf.math.bincount(shard, minlength=SHARDS).numpy().tolist()):
        opened[number].write(by_shard[start : start + count].data)
        counts[number] += count
        start += count


def _file(folder: str, number: int) -> str:
    return os.path.join(folder, f"rows-{number:05d}-of-{SHARDS:05d}")
