"""Which split a row belongs to, and whether it is in the sample: by hash of its values.

Book pattern: Repeatable Splitting, with FarmHash as the book's FARM_FINGERPRINT.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from components.ingest.settings import SPLITS, IngestSettings, Split

Cuts = tuple[Any, Any]
"""The last time that is train, and the last that is eval."""
TEST = SPLITS.index("test")
Counts = dict[Any, int]
"""How many rows have each time, or, in a summary, lie at or before it and after the one before."""
_LIMIT = 1 << 18
_Hashes: TypeAlias = npt.NDArray[np.uint64]


def assign(batch: pa.RecordBatch, split: Split | None, cuts: Cuts | None) -> npt.NDArray[np.int64]:
    """The split of each row, as an index into SPLITS.

    Args:
        batch: Rows, all columns, in the order of the settings' names.
        split: How to divide; None: not at all, every row is test.
        cuts: Where to divide, for by: time.

    Returns:
        Shape [rows]; it depends on nothing but a row's values, not on file, order or other rows.
    """
    if split is None or not len(batch):
        return np.full(len(batch), TEST)
    if cuts is not None:
        times = batch[split.time]
        later = [pc.greater(times, pa.scalar(cut, times.type)) for cut in cuts]
        after: list[npt.NDArray[np.bool]] = [x.to_numpy(zero_copy_only=False) for x in later]
        return after[0].astype(np.int64) + after[1]
    hashes = fingerprints(batch.select(sorted(split.key)) if split.key else batch)
    bounds = np.array([_threshold(split.train), _threshold(split.train + split.eval)])
    return np.searchsorted(bounds, hashes, side="right").astype(np.int64)


def sampled(batch: pa.RecordBatch, settings: IngestSettings) -> pa.RecordBatch:
    """The rows in the sample: chosen independently of the splits, and more for a larger sample."""
    if settings.sample == 1:
        return batch
    keep = _mixed(fingerprints(batch)) < _threshold(settings.sample)
    return batch.filter(pa.array(keep))


def fingerprints(batch: pa.RecordBatch) -> _Hashes:
    """FarmHash's Fingerprint64 of the rows' canonical bytes, shape [rows]."""
    values = canonical(batch).to_numpy(zero_copy_only=False)
    hashes: _Hashes = tf.fingerprint(tf.constant(values, tf.string)).numpy().view("<u8")[:, 0]
    return hashes


def canonical(batch: pa.RecordBatch) -> pa.Array:
    """One byte string a row, different for different rows.

    First, column by column: a number as its bytes and a byte that says whether it is missing, the
    length of a text (-1 if missing). Then all texts.
    """
    fixed: list[npt.NDArray[np.uint8]] = []
    texts: list[pa.Array] = []
    for column in batch.columns:
        if pa.types.is_binary(column.type):
            lengths = pc.fill_null(pc.binary_length(column), -1)
            fixed.append(_as_bytes(lengths, "<i4"))
            texts.append(column)
        else:
            number = "<i8" if pa.types.is_integer(column.type) else "<f4"
            fixed.append(_as_bytes(pc.fill_null(column, 0), number))
            fixed.append(_as_bytes(column.is_null(), "u1"))
    matrix = np.ascontiguousarray(np.concatenate(fixed, axis=1))
    kind = pa.binary(matrix.shape[1])
    numbers = pa.Array.from_buffers(kind, len(batch), [None, pa.py_buffer(matrix)])
    return pc.binary_join_element_wise(
        numbers.cast(pa.binary()), *texts, b"", null_handling="replace", null_replacement=b""
    )


def _as_bytes(array: pa.Array, dtype: str) -> npt.NDArray[np.uint8]:
    numbers: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False).astype(dtype)
    return numbers.reshape(-1, 1).view(np.uint8)


def _threshold(fraction: float) -> np.uint64:
    return np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))


def _mixed(hashes: _Hashes) -> _Hashes:
    """Hashes that are independent of `hashes` (the finalizer of SplitMix64)."""
    mixed = hashes ^ np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def count_times(parts: Iterable[Counts]) -> Counts:
    """Merges counts of times; exact up to 262,144 different ones, then to about 1 in 30,000."""
    counts: Counts = {}
    for part in parts:
        for time, count in part.items():
            counts[time] = counts.get(time, 0) + count
        counts = _summary(counts) if len(counts) > _LIMIT else counts
    return counts


def find_cuts(counts: Counts, split: Split) -> Cuts | None:
    """The last time of train and of eval, so that each has its fraction of the rows.

    Equal times stay together, so the fractions are met as closely as the data allows. None if
    there are no times.
    """
    total, seen = sum(counts.values()), 0
    wanted = [split.train * total, (split.train + split.eval) * total]
    cuts: list[Any] = []
    for time in sorted(counts):
        seen += counts[time]
        while len(cuts) < len(wanted) and seen >= wanted[len(cuts)] - 1e-9 * total:
            cuts.append(time)
    return (cuts[0], cuts[1]) if counts else None


def _summary(counts: Counts) -> Counts:
    """Neighbours taken together, under the later time, until at most half of `_LIMIT` are left."""
    weight = 4 * sum(counts.values()) / _LIMIT
    summary: Counts = {}
    pending = 0
    for time in sorted(counts):
        pending += counts[time]
        if pending >= weight:
            summary[time], pending = pending, 0
    if pending:
        summary[time] = pending
    return summary
