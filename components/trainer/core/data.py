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

import numpy as np
import tensorflow as tf

from components import files
from components.trainer.core.checkpoints import PROGRESS

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
    """float32 [rows, numeric features and then pixels]."""
    ids: tf.Tensor
    """int32 [rows, categorical features and then tokens]."""
    labels: tf.Tensor
    """float32 [rows], int32 class ids [rows] for multiclass, or [rows, classes] for multilabel."""

    def take(self, order: tf.Tensor) -> "Rows":
        """The rows at these positions, int [n]."""
        return Rows(*(tf.gather(column, order) for column in self))


class InMemory:
    """All rows as one shard in memory.

    Attributes:
      counts: rows by shard.
      window: how many shards are in memory at a time; divides their number.
      order: stands for the order of the rows, as far as their values do not decide it.
      label: what `described` says of the labels.
    """

    window = 1
    order = ""

    def __init__(self, rows: Rows):
        """Takes the rows, in their order."""
        self._rows = rows
        self.counts = [int(rows.labels.shape[0])]
        self.label = described(rows.labels.numpy())

    def read(self, numbers: tf.Tensor) -> Rows:
        """All rows."""
        return self._rows


def described(labels: np.ndarray) -> dict[str, Any]:
    """What heads need to know of the training labels: JSON.

    Args:
      labels: [rows], or [rows, classes].

    Returns:
      `mean`, `deviation`, and 1001 evenly spaced `quantiles`; `counts` of the class ids 0, 1, ...
      if these are whole numbers below 1,000, else [].
    """
    own: np.ndarray = labels.astype(np.float64)
    are_ids = labels.ndim == 1 and bool(np.all((own >= 0) & (own < 1000) & (own % 1 == 0)))
    return {
        "mean": float(own.mean()),
        "deviation": float(own.std()),
        "quantiles": np.quantile(own, np.linspace(0, 1, 1001)).tolist(),
        "counts": np.bincount(labels.astype(np.int64)).tolist() if are_ids else [],
    }


KINDS = ("numbers", "pixels", "ids", "tokens")
"""What the model's inputs are called."""


def grouped(features: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The features of a spec by `KINDS`, in the order of their columns in `Rows`."""
    numbers, ids = ([f for f in features if (f["size"] is None) == n] for n in (True, False))
    return [
        [f for f in numbers if "pixels" not in f],
        [f for f in numbers if "pixels" in f],
        [f for f in ids if "tokens" not in f],
        [f for f in ids if "tokens" in f],
    ]


def width(feature: dict[str, Any]) -> int:
    """How many columns a feature has."""
    return int(feature.get("tokens") or np.prod(feature.get("pixels", [])))


def stacked(columns: dict[str, tf.Tensor], features: Sequence[dict[str, Any]]) -> Any:
    """The columns of `Rows` from transformed features by name: float32 and int32, [rows, ...]."""
    numbers, pixels, ids, tokens = grouped(features)
    rows = tf.shape(next(iter(columns.values())))[0]
    made = []
    for kind, group in ((tf.float32, [*numbers, *pixels]), (tf.int32, [*ids, *tokens])):
        parts = [tf.reshape(tf.cast(columns[f["name"]], kind), [rows, width(f)]) for f in group]
        made.append(tf.concat(parts, axis=1) if parts else tf.zeros([rows, 0], kind))
    return made


def by_kind(
    numbers: tf.Tensor, ids: tf.Tensor, features: Sequence[dict[str, Any]]
) -> dict[str, tf.Tensor]:
    """The model's inputs by `KINDS`, each [rows, columns]; pixels and tokens only if there are."""
    widths = [sum(map(width, group)) for group in grouped(features)]
    parts = [*tf.split(numbers, widths[:2], axis=1), *tf.split(ids, widths[2:], axis=1)]
    return {
        kind: part
        for kind, part, count in zip(KINDS, parts, widths, strict=True)
        if count or kind in ("numbers", "ids")
    }


class Layout(NamedTuple):
    """A row's bytes: float32 numbers, int32 ids, and the labels, four bytes each."""

    numbers: int
    ids: int
    label: tf.DType
    labels: int | None = None
    """How many a row has; None: one, and the labels are [rows]."""

    @classmethod
    def of(cls, inputs: dict[str, Any]) -> "Layout":
        """The layout for a feature spec."""
        widths = [sum(map(width, group)) for group in grouped(inputs["features"])]
        label = tf.int32 if inputs["problem"] == "multiclass" else tf.float32
        labels = inputs["num_classes"] if inputs["problem"] == "multilabel" else None
        return cls(widths[0] + widths[1], widths[2] + widths[3], label, labels)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * (self.numbers + self.ids + (self.labels or 1))

    def pack(self, rows: Rows) -> tf.Tensor:
        """Rows as int32 [n, columns and label]."""
        columns = (rows.numbers, rows.ids, tf.reshape(rows.labels, [-1, self.labels or 1]))
        return tf.concat([tf.bitcast(column, tf.int32) for column in columns], axis=1)

    def unpack(self, data: tf.Tensor) -> Rows:
        """Rows from the bytes of some shards, string scalar."""
        words = tf.reshape(tf.io.decode_raw(data, tf.int32), [-1, self.row_bytes // 4])
        numbers, ids, label = tf.split(words, [self.numbers, self.ids, self.labels or 1], axis=1)
        labels = tf.bitcast(label if self.labels else label[:, 0], self.label)
        return Rows(tf.bitcast(numbers, tf.float32), ids, labels)


class Shards:
    """Rows in a folder of shards; with the attributes of `InMemory`."""

    def __init__(self, folder: str, layout: Layout, written: dict[str, Any], memory_mib: float):
        """Takes the folder and what its `counts.json` says."""
        self._layout = layout
        self._files = [_file(folder, number) for number in range(SHARDS)]
        self.counts: list[int] = written["counts"]
        self.order: str = written["order"]
        self.label: dict[str, Any] = written["label"]
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


def read(
    patterns: Sequence[str], inputs: dict[str, Any], memory_mib: float
) -> tuple[str, list[Rows] | None]:
    """A hash of the rows as a training sees them, whatever their order and files; and the rows.

    It is the sum of two 64-bit hashes of each row. (The bytes of the files won't do: protobuf
    writes a map's entries in another order in each process, and Beam its shards.)

    Args:
      patterns: globs of gzipped TFRecord files of tf.Examples, one value for each feature.
      inputs: the feature spec (`components.features.model_inputs`).
      memory_mib: rows that take more are not kept: None comes back for them.
    """
    layout = Layout.of(inputs)
    kept: list[Rows] | None = []
    count, sums = 0, tf.zeros([2], tf.int64)
    for rows in _parsed(_matching(patterns), inputs):
        packed = layout.pack(rows)
        first = tf.bitcast(tf.fingerprint(packed), tf.int64)
        salted = tf.concat([tf.bitcast(first, tf.int32), packed], axis=1)
        second = tf.bitcast(tf.fingerprint(salted), tf.int64)
        sums += tf.reduce_sum(tf.stack([first, second]), axis=1)
        count += int(packed.shape[0])
        if count * layout.row_bytes > memory_mib * MIB:
            kept = None
        if kept is not None:
            kept.append(rows)
    return hashlib.sha256(f"{count} {sums.numpy().tolist()}".encode()).hexdigest(), kept


def fingerprint(patterns: Sequence[str], inputs: dict[str, Any]) -> str:
    """The hash alone that `read` makes."""
    return read(patterns, inputs, 0)[0]


def load(
    patterns: Sequence[str],
    inputs: dict[str, Any],
    memory_mib: float,
    scratch: str,
    keep: Sequence[float] | None = None,
    known: Iterable[Rows] | None = None,
) -> Source:
    """Reads the files once. In memory, the rows' order depends on nothing but the rows.

    Args:
      patterns: globs of gzipped TFRecord files of tf.Examples, one value for each feature.
      inputs: the feature spec (`components.features.model_inputs`).
      memory_mib: rows that take more are written to shards in `scratch`.
      scratch: a folder for them; shards that are there are taken for those of the same rows.
      keep: which share of each class's rows, by a hash of the row; all if None.
      known: the rows, if they were read before; the files are not read again.

    Raises:
      ValueError: the files hold no rows.
      RowsError: a row's label is not among the classes.
    """
    layout = Layout.of(inputs)
    if found := open_shards(scratch, layout, memory_mib):
        return found
    parts = _checked(known or _parsed(_matching(patterns), inputs), inputs["problem"])
    if keep is not None:
        parts = (_thinned(part, layout, keep) for part in parts)
    kept: deque[Rows] = deque()
    count = 0
    for part in parts:
        kept.append(part)
        count += int(part.labels.shape[0])
        if count * layout.row_bytes > memory_mib * MIB:
            read = (kept.popleft() for _ in range(len(kept)))  # none is kept longer than needed
            write_shards(scratch, layout, itertools.chain(read, parts))
            return load(patterns, inputs, memory_mib, scratch, keep)
    if not kept:
        raise ValueError(f"No examples in {', '.join(patterns)}.")
    return InMemory(_sorted(kept, layout))


def gathered(patterns: Sequence[str], inputs: dict[str, Any]) -> Rows:
    """All rows, in the order of the files."""
    parts = _parsed(_matching(patterns), inputs)
    return Rows(*(tf.concat(column, axis=0) for column in zip(*parts, strict=True)))


def _thinned(rows: Rows, layout: Layout, keep: Sequence[float]) -> Rows:
    """The rows whose hash is below their class's share."""
    hashes = tf.bitcast(tf.fingerprint(layout.pack(rows), "farmhash64"), tf.int64)
    drawn = tf.cast(hashes & ((1 << 31) - 1), tf.float32) / (1 << 31)
    shares = tf.gather(tf.constant(keep, tf.float32), tf.cast(rows.labels, tf.int32))
    return rows.take(tf.where(drawn < shares)[:, 0])


def _matching(patterns: Sequence[str]) -> list[str]:
    return sorted(name for pattern in patterns for name in tf.io.gfile.glob(pattern))


def _checked(parts: Iterable[Rows], problem: str) -> Iterator[Rows]:
    for part in parts:
        labels = part.labels
        known = labels >= 0 if problem == "multiclass" else (labels == 0) | (labels == 1)
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
    layout = Layout.of(inputs)
    is_id = layout.label == tf.int32
    shape = [layout.labels] if layout.labels else []
    spec = {
        f["name"]: tf.io.FixedLenFeature(
            [width(f)] if "pixels" in f or "tokens" in f else [],
            tf.float32 if f["size"] is None else tf.int64,
        )
        for f in inputs["features"]
    }
    spec[inputs["label"]] = tf.io.FixedLenFeature(shape, tf.int64 if is_id else tf.float32)

    def parse(batch: tf.Tensor) -> Rows:
        parsed = tf.io.parse_example(batch, spec)
        label = parsed[inputs["label"]]
        numbers, ids = stacked(parsed, inputs["features"])
        return Rows(numbers, ids, tf.cast(label, tf.int32) if is_id else label)

    records = tf.data.TFRecordDataset(names, compression_type="GZIP", buffer_size=MIB)
    batches = records.batch(_RECORDS_A_PARSE).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    for rows in batches.prefetch(2):
        PROGRESS.debug("rows read")
        yield rows


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
    counts, order = [0] * SHARDS, hashlib.sha256()
    labels: list[np.ndarray] = []
    with ExitStack() as stack:
        names = [_file(folder, number) for number in range(SHARDS)]
        opened = [stack.enter_context(open(name, "wb", buffering=1 << 16)) for name in names]
        for rows in parts:
            packed = layout.pack(rows)
            order.update(packed.numpy().data)
            _append(opened, counts, packed)
            labels.append(rows.labels.numpy())
    label = described(np.concatenate(labels))
    written = {"counts": counts, "label": label, "order": order.hexdigest()}
    files.write_atomically(os.path.join(folder, _COUNTS), json.dumps(written))


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
