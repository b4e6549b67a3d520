"""Learns the heuristic's predictions from the training rows, and exports it as a SavedModel."""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2

from components.errors import PipelineStop
from components.evaluation.heuristic import MINED, Buckets, parse_rule, rule_buckets
from components.features.table import FeatureTable
from components.features.transform import label_of

_TYPES = {"BYTES": tf.string, "INT": tf.int64, "FLOAT": tf.float32}
_BATCH = 16_384
_MINED_ROWS = 500_000
"""A mined rule is chosen on so many rows; its predictions are learned from all of them."""
_MOST_BUCKETS = 32
_CLIP = 1e-7


@dataclass(frozen=True)
class Column:
    """One raw column of some rows: values [N], and bool [N] that tells which are there."""

    values: np.ndarray
    present: np.ndarray


Rows = tuple[dict[str, Column], np.ndarray]
"""Columns by name, and the targets float32 [N, D] (one-hot for multiclass, else D is 1)."""


@dataclass(frozen=True)
class Heuristic:
    """Buckets, and per bucket the prediction float32 [K, D] and the number of training rows."""

    buckets: Buckets
    predictions: np.ndarray
    rows: np.ndarray

    def describe(self) -> dict[str, Any]:
        """The rule as JSON: its column, and each bucket's content, rows and prediction."""
        predictions, rows = self.predictions.tolist(), self.rows.tolist()
        buckets = [
            {"holds": name, "rows": rows[bucket], "prediction": predictions[bucket]}
            for bucket, name in enumerate(self.buckets.names())
        ]
        return {"column": self.buckets.column, "buckets": buckets}


def column_types(schema: schema_pb2.Schema) -> dict[str, str]:
    """The schema's columns, each with its type: BYTES, INT or FLOAT."""
    return {f.name: schema_pb2.FeatureType.Name(f.type) for f in schema.feature}


def learn(
    rule: str, table: FeatureTable, types: Mapping[str, str], split_folders: list[str]
) -> Heuristic:
    """Learns the heuristic of a rule, or mines one, from the TFRecords of the training split.

    Args:
        rule: `COLUMN OP VALUE` or 'mined', already checked by `heuristic_problems`.
        table: The feature table.
        types: The schema's columns and their types.
        split_folders: Where the training rows are.
    """
    files = sorted(f for folder in split_folders for f in glob.glob(os.path.join(folder, "*")))
    if rule == MINED:
        rows = read_rows(files, table, types, table.raw_columns())
        buckets = mine(table.problem, *_first_rows(rows))
    else:
        parsed = parse_rule(rule)
        buckets = rule_buckets(parsed, types[parsed.column])
    return fit(buckets, read_rows(files, table, types, [buckets.column]))


def read_rows(
    files: list[str], table: FeatureTable, types: Mapping[str, str], columns: list[str]
) -> Iterator[Rows]:
    """Yields the columns batch by batch; rows without a known label are left out."""
    label = table.label.column
    spec: dict[str, Any] = {name: tf.io.RaggedFeature(_TYPES[types[name]]) for name in columns}
    spec[label] = tf.io.VarLenFeature(_TYPES[types[label]])
    compression = "GZIP" if files and files[0].endswith(".gz") else ""
    for batch in tf.data.TFRecordDataset(files, compression).batch(_BATCH):
        parsed = tf.io.parse_example(batch, spec)
        labels = label_of(parsed.pop(label), table).numpy()
        known = labels >= 0 if table.label.classes else np.isfinite(labels)
        by_name = {}
        for name, lists in parsed.items():
            values, present = (tensor.numpy()[known] for tensor in first_values(lists))
            by_name[name] = Column(values, present)
        yield by_name, _targets(labels[known], table)


def first_values(lists: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The first value of each row [N], and whether there is one: "" and NaN are missing too."""
    present = lists.row_lengths() > 0
    values = tf.reshape(lists[:, :1].to_tensor(shape=[None, 1]), [-1])
    if lists.dtype == tf.string:
        present &= values != ""
    elif lists.dtype.is_floating:
        present &= ~tf.math.is_nan(values)
    return values, present


def _targets(labels: np.ndarray, table: FeatureTable) -> np.ndarray:
    if table.problem == "multiclass":
        return np.eye(table.num_classes(), dtype=np.float32)[labels.astype(np.int64)]
    return labels.astype(np.float32)[:, None]


def _first_rows(batches: Iterator[Rows]) -> Rows:
    kept: list[Rows] = []
    while sum(len(targets) for _, targets in kept) < _MINED_ROWS and (batch := next(batches, None)):
        kept.append(batch)
    columns = {
        name: Column(
            np.concatenate([columns[name].values for columns, _ in kept]),
            np.concatenate([columns[name].present for columns, _ in kept]),
        )
        for name in kept[0][0]
    }
    return columns, np.concatenate([targets for _, targets in kept])


def mine(problem: str, columns: dict[str, Column], targets: np.ndarray) -> Buckets:
    """The buckets, of one column, that learned on every other row predict the remaining best."""
    learning = np.arange(len(targets)) % 2 == 0
    losses = {}
    for column, data in columns.items():
        if (buckets := _candidate(column, data)) is None:
            continue
        ids = bucket_ids(buckets, data.values, data.present).numpy()
        predictions, _ = _predictions(len(buckets), [(ids[learning], targets[learning])])
        losses[buckets] = _loss(problem, targets[~learning], predictions[ids[~learning]])
    if not losses:
        raise PipelineStop(
            "No column has two different values to mine a heuristic from. Look at the data, or set "
            "evaluation.heuristic to a rule."
        )
    return min(losses, key=losses.__getitem__)


def _candidate(column: str, data: Column) -> Buckets | None:
    """The most frequent texts, or a number's values if they are few, or its quantiles."""
    distinct, counts = np.unique(data.values[data.present], return_counts=True)
    if len(distinct) == 0 or (len(distinct) == 1 and data.present.all()):
        return None
    if data.values.dtype == object:
        frequent = distinct[np.argsort(-counts, kind="stable")[:_MOST_BUCKETS]]
        return Buckets(column, values=tuple(value.decode(errors="replace") for value in frequent))
    if len(distinct) > _MOST_BUCKETS:
        cuts = np.linspace(0, 1, _MOST_BUCKETS + 1)[1:-1]
        distinct = np.unique(np.quantile(data.values[data.present], cuts))
    return Buckets(column, boundaries=tuple(float(start) for start in distinct))


def _loss(problem: str, targets: np.ndarray, predictions: np.ndarray) -> float:
    if problem == "regression":
        return float(((targets - predictions) ** 2).mean())
    clipped = np.clip(predictions, _CLIP, 1 - _CLIP)
    log_loss = -(targets * np.log(clipped))
    if problem == "binary":
        log_loss -= (1 - targets) * np.log(1 - clipped)
    return float(log_loss.sum(axis=1).mean())


def bucket_ids(buckets: Buckets, values: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """The bucket int64 [N] of each value; in training and in the exported graph alike."""
    values = tf.convert_to_tensor(values)
    if buckets.values:
        matches = values[:, None] == tf.constant([list(buckets.values)], values.dtype)
        ids = tf.where(tf.reduce_any(matches, 1), tf.argmax(matches, 1) + 1, 0)
    else:
        starts = tf.constant(buckets.boundaries, tf.float64)
        ids = tf.searchsorted(starts, tf.cast(values, tf.float64), "right", tf.int64)
    return tf.where(present, ids, len(buckets) - 1)


def fit(buckets: Buckets, batches: Iterator[Rows]) -> Heuristic:
    """Learns the predictions of all buckets from all rows."""
    parts = (
        (bucket_ids(buckets, column.values, column.present).numpy(), targets)
        for columns, targets in batches
        for column in [columns[buckets.column]]
    )
    return Heuristic(buckets, *_predictions(len(buckets), parts))


def _predictions(
    count: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """The mean target of each bucket, with one row of the overall mean added to each."""
    rows, sums = np.zeros(count), np.zeros((count, 1))
    for ids, targets in parts:
        rows = rows + np.bincount(ids, minlength=count)
        columns = [np.bincount(ids, weights=column, minlength=count) for column in targets.T]
        sums = sums + np.stack(columns, axis=1)
    overall = sums.sum(axis=0) / max(rows.sum(), 1)
    predictions = (sums + overall) / (rows[:, None] + 1)
    return predictions.astype(np.float32), rows.astype(np.int64)


class _Serving(tf.Module):
    """The heuristic with the signatures of a trained model."""

    def __init__(self, heuristic: Heuristic, table: FeatureTable, types: Mapping[str, str]) -> None:
        super().__init__()
        self._buckets = heuristic.buckets
        self._predictions = tf.constant(heuristic.predictions)
        self._table = table
        self._types = types

    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        column = self._buckets.column
        spec = {column: tf.io.RaggedFeature(_TYPES[self._types[column]])}
        values, present = first_values(tf.io.parse_example(examples, spec)[column])
        ids = bucket_ids(self._buckets, values, present)
        return {"predictions": tf.gather(self._predictions, ids)}

    def label_index(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        label = self._table.label.column
        spec = {label: tf.io.VarLenFeature(_TYPES[self._types[label]])}
        index = label_of(tf.io.parse_example(examples, spec)[label], self._table)
        return {"label_index": tf.cast(index, tf.float32)[:, None]}


def export(
    heuristic: Heuristic, table: FeatureTable, types: Mapping[str, str], folder: str
) -> None:
    """Writes a SavedModel with the signature `serving_default`, and `label_index` for classes."""
    module = _Serving(heuristic, table, types)
    examples = tf.TensorSpec([None], tf.string, name="examples")
    signatures = {"serving_default": tf.function(module.serve, [examples])}
    if table.label.classes:
        signatures["label_index"] = tf.function(module.label_index, [examples])
    tf.saved_model.save(module, folder, signatures=signatures)
