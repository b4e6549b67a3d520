"""Which rows are no news: duplicates within a span, and rows of earlier spans."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.types import artifact_utils
from tfx_bsl.coders import example_coder

from components.evaluation.extractors import scalars
from components.ingest.splitting import fingerprints

_BATCH = 4096


def hashes(examples: types.Artifact, split: str, schema: schema_pb2.Schema) -> np.ndarray:
    """FarmHash of each row's values in the schema's columns, uint64 [rows], sorted."""
    pattern = artifact_utils.get_split_uri([examples], split) + "/*"
    decoder = example_coder.ExamplesToRecordBatchDecoder(schema.SerializeToString())
    found: list[np.ndarray] = [np.zeros(0, np.uint64)]
    for path in sorted(tf.io.gfile.glob(pattern)):
        for batch in tf.data.TFRecordDataset(path, "GZIP").batch(_BATCH):
            found.append(_hash(decoder.DecodeBatch(batch.numpy())))
    return np.sort(np.concatenate(found))


def _hash(batch: pa.RecordBatch) -> np.ndarray:
    names = sorted(batch.schema.names)
    columns = [_narrow(scalars([batch], name)) for name in names]
    return fingerprints(pa.record_batch(columns, names))


def _narrow(column: pa.Array) -> pa.Array:
    """The type that ingest has for a column's values."""
    return column.cast(pa.binary()) if pa.types.is_large_binary(column.type) else column


def shares(own: np.ndarray, earlier: Iterable[np.ndarray]) -> tuple[float, float]:
    """Which share of the rows is a repetition within the span, and which is in an earlier one.

    Args:
      own: uint64 [rows], sorted.
      earlier: The same of each earlier span.
    """
    if not len(own):
        return 0.0, 0.0
    known: np.ndarray = np.zeros(len(own), bool)
    for others in earlier:
        known |= np.isin(own, others)
    return 1 - len(np.unique(own)) / len(own), float(known.mean())
