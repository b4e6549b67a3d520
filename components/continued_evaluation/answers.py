"""Logged predictions: beside what the same version answers now, and out of their examples."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.continued_evaluation.evidence import Answers
from components.continued_evaluation.reading import PREDICTION
from components.evaluation.arrays import scalars

_ROWS = 4096


class LabelledRows(NamedTuple):
    """Rows that `joined.LabelledLog` put out."""

    examples: np.ndarray
    """object [N]: serialised tf.Examples, as the signature `serving_default` takes them."""
    labels: np.ndarray
    """[N]: int64, float32, or object (UTF-8 bytes)."""
    predictions: np.ndarray
    """float32 [N, C]: as they were logged."""


def compare(logged: np.ndarray, recomputed: np.ndarray, tolerance: float) -> Answers:
    """How far logged predictions are from those of the same rows now.

    A value may be off by the tolerance, and by the tolerance times its size where that is above 1,
    as float32 is no more exact. NaN equals NaN, infinity itself; any other value is different from
    them.

    Args:
      logged: float32 [N, C].
      recomputed: float32 [N, C].
      tolerance: Of one value.
    """
    if logged.shape != recomputed.shape:
        raise ValueError(f"{logged.shape} predictions are logged, {recomputed.shape} recomputed")
    before: np.ndarray = logged.astype(np.float64)
    now: np.ndarray = recomputed.astype(np.float64)
    finite = np.isfinite(before) & np.isfinite(now)
    same = (before == now) | (np.isnan(before) & np.isnan(now))
    off = np.abs(np.subtract(before, now, where=finite, out=np.zeros_like(now)))
    allowed = tolerance * np.maximum(1.0, np.abs(now, where=finite, out=np.zeros_like(now)))
    different = ~np.where(finite, off <= allowed, same).all(axis=1)
    return Answers(
        rows=len(logged),
        different=float(different.mean()) if len(logged) else 0.0,
        largest=float(off.max(initial=0.0)),
    )


def read_labelled(folder: str, label: str) -> Iterator[LabelledRows]:
    """Yields the rows of a split that `joined.LabelledLog` wrote, in batches.

    Args:
      folder: Of the split.
      label: The label's column.
    """
    decoder = ExamplesToRecordBatchDecoder()
    shards = sorted(str(path) for path in Path(folder).glob("*.gz"))
    records = tf.data.TFRecordDataset(shards, compression_type="GZIP").batch(_ROWS)
    for examples in records.prefetch(1).as_numpy_iterator():
        batch = decoder.DecodeBatch(examples)
        flat = batch[PREDICTION].flatten().to_numpy(zero_copy_only=False)
        predictions = flat.reshape(len(batch), -1)
        yield LabelledRows(examples, _labels(batch, label), predictions)


def _labels(batch: pa.RecordBatch, label: str) -> np.ndarray:
    found: np.ndarray = scalars([batch], label).to_numpy(zero_copy_only=False)
    return found
