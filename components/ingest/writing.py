"""Examples into compressed TFRecord shards, under temporary names until all are there."""

import os
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from tfx.dsl.io import fileio
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.ingest.settings import SPLITS

SHARD_ROWS = 1 << 15
"""A shard is closed by the batch that reaches so many rows, some 5 MB compressed."""
_OPTIONS = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
_PENDING = 2


class Shard(NamedTuple):
    """A file of examples of one split; `file` and `part` give its place in the order."""

    split: str
    file: int
    part: int
    path: str
    rows: int


class ShardWriter:
    """Writes the rows of one input file into shards; its thread compresses while others parse."""

    def __init__(self, folder: str, file: int) -> None:
        """Sets up for input number `file`; shards get names of their own within `folder`."""
        self._prefix = os.path.join(folder, f"{file:05d}-{uuid.uuid4().hex}")
        self._file = file
        self._encoder = RecordBatchToExamplesEncoder()
        self._thread = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._open: dict[int, tf.io.TFRecordWriter] = {}
        self._rows: dict[int, list[int]] = {index: [] for index in range(len(SPLITS))}

    def __enter__(self) -> "ShardWriter":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Waits for what is pending and closes the shards."""
        self._thread.shutdown(cancel_futures=kind is not None)
        for index in [*self._open]:
            self._close(index)

    def write(self, batch: pa.RecordBatch, splits: npt.NDArray[np.int64]) -> None:
        """Writes each row to the shard of its split, given as an index into SPLITS."""
        examples = self._encoder.encode(as_lists(batch))
        self._pending.append(self._thread.submit(self._append, examples, splits))
        if len(self._pending) > _PENDING:
            self._pending.pop(0).result()

    def finish(self) -> list[Shard]:
        """Waits until all is written, and returns the shards."""
        for pending in self._pending:
            pending.result()
        for index in [*self._open]:
            self._close(index)
        return [
            Shard(SPLITS[index], self._file, part, self._path(index, part), rows)
            for index, parts in self._rows.items()
            for part, rows in enumerate(parts)
        ]

    def _append(self, examples: list[bytes], splits: npt.NDArray[np.int64]) -> None:
        for index, count in enumerate(np.bincount(splits, minlength=len(SPLITS)).tolist()):
            if count and index not in self._open:
                self._rows[index].append(0)
                path = self._path(index, len(self._rows[index]) - 1)
                self._open[index] = tf.io.TFRecordWriter(path, _OPTIONS)
            if count:
                self._rows[index][-1] += count
        for example, index in zip(examples, splits.tolist(), strict=True):
            self._open[index].write(example)
        for index in [*self._open]:
            if self._rows[index][-1] >= SHARD_ROWS:
                self._close(index)

    def _close(self, index: int) -> None:
        self._open.pop(index).close()

    def _path(self, index: int, part: int) -> str:
        return f"{self._prefix}-{SPLITS[index]}-{part:05d}"


def as_lists(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch as the encoder wants it: a list of one value a row, null where it is missing."""
    one_each = pa.array(np.arange(len(batch) + 1, dtype=np.int32))
    lists = [
        _with_nulls(column) if column.null_count else pa.ListArray.from_arrays(one_each, column)
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(lists, names=batch.schema.names)


def _with_nulls(column: pa.Array) -> pa.ListArray:
    ends = np.cumsum(column.is_valid().to_numpy(zero_copy_only=False), dtype=np.int32)
    offsets = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
    return pa.ListArray.from_arrays(offsets, column.drop_null(), mask=column.is_null())


def publish(shards: list[Shard], folders: dict[str, str]) -> None:
    """Gives the shards their final names, `data_tfrecord-XXXXX-of-NNNNN.gz`, in a fixed order.

    Args:
        shards: All shards of the run.
        folders: The folder of each split.
    """
    for split, folder in folders.items():
        mine = sorted((s for s in shards if s.split == split), key=lambda s: (s.file, s.part))
        if fileio.exists(folder):  # From an attempt that was cut short.
            fileio.rmtree(folder)
        fileio.makedirs(folder)
        for number, shard in enumerate(mine):
            name = f"data_tfrecord-{number:05d}-of-{len(mine):05d}.gz"
            fileio.rename(shard.path, os.path.join(folder, name), overwrite=True)
