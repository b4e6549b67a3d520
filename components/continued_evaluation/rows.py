"""Which rows are no news: duplicates within a span, and rows of earlier spans."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.types import artifact_utils
from tfx_bsl.coders import example_coder

from components.evaluation.arrays import row_hashes

_BATCH = 4096
SKETCH = 100_000
"""So many hashes of a span are kept: 800 kB."""


def hashes(examples: types.Artifact, split: str, schema: schema_pb2.Schema) -> np.ndarray:
    """FarmHash of each row's values in the schema's columns, uint64 [rows], sorted."""
    pattern = artifact_utils.get_split_uri([examples], split) + "/*"
    decoder = example_coder.ExamplesToRecordBatchDecoder(schema.SerializeToString())
    found: list[np.ndarray] = [np.zeros(0, np.uint64)]
    for path in sorted(tf.io.gfile.glob(pattern)):
        for batch in tf.data.TFRecordDataset(path, "GZIP").batch(_BATCH):
            found.append(row_hashes([decoder.DecodeBatch(batch.numpy())]))
    return np.sort(np.concatenate(found))


def sketch(hashes: np.ndarray) -> np.ndarray:
    """The `SKETCH` smallest different hashes, uint64 [at most SKETCH], sorted: what is kept.

    Hashes are spread evenly, so the smallest are a sample of the rows, and the same rows are drawn
    from every span that has them. A span with no more different rows is kept whole.

    Args:
      hashes: uint64 [rows], of a span's rows.
    """
    return np.unique(hashes)[:SKETCH]


def shares(own: np.ndarray, earlier: Iterable[np.ndarray]) -> tuple[float, float]:
    """Which share of the rows is a repetition within the span, and which is in an earlier one.

    The second is exact where the earlier spans are kept whole. Of a larger span only rows below
    its largest kept hash can be recognised: a sample of both. From the most completely kept span
    to the least, each says which share of the rows left over it has (a product-limit estimate);
    with 100,000 rows in view the share is right to 0.3 %.

    Args:
      own: uint64 [rows], sorted.
      earlier: The `sketch` of each earlier span.
    """
    if not len(own):
        return 0.0, 0.0
    fresh = 1.0
    unknown: np.ndarray = np.ones(len(own), bool)
    for kept in sorted(earlier, key=_reach, reverse=True):
        in_view = int(np.searchsorted(own, _reach(kept), "right"))
        left = unknown[:in_view]
        known = left & np.isin(own[:in_view], kept)
        fresh *= 1 - known.sum() / max(left.sum(), 1)
        unknown[:in_view] &= ~known
    return 1 - len(np.unique(own)) / len(own), float(1 - fresh)


def _reach(kept: np.ndarray) -> np.uint64:
    """Up to which hash a span's rows are kept."""
    return np.uint64(kept[-1] if len(kept) >= SKETCH else np.iinfo(np.uint64).max)
