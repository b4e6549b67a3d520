"""A training made from settings alone: no Transform, and random rows instead of data."""

from typing import Any

import tensorflow as tf

from components.features.model_inputs import model_inputs
from components.features.table import FeatureTable, Vocabulary
from components.trainer.core.batches import Batch
from components.trainer.core.data import InMemory
from components.trainer.core.loop import Training
from components.trainer.core.rows import Rows

_VOCABULARY = 100
"""Stands in for the size of a vocabulary without `top_k`."""
_ROWS = 512


class _Vocabularies:
    """What `model_inputs` asks of Transform's output."""

    def __init__(self, table: FeatureTable):
        safe = table.safe_names()
        self._sizes = {
            safe[name]: feature.top_k or _VOCABULARY
            for name, feature in table.columns.items()
            if isinstance(feature, Vocabulary)
        }

    def vocabulary_size_by_name(self, name: str) -> int:
        return self._sizes[name]


def stand_in_inputs(table: FeatureTable) -> dict[str, Any]:
    """The feature spec that the table would give, but for the vocabularies' sizes."""
    return model_inputs(table, _Vocabularies(table))


def stand_in_training(inputs: dict[str, Any], settings: dict[str, Any]) -> Training:
    """The training of a feature spec and settings, on random rows and without a strategy."""
    rows = InMemory(Rows(*stand_in_batch(inputs, _ROWS, 0)[:3]))
    options = settings["training"] | {"strategy": "auto", "warm_start": None}
    return Training(rows, rows, inputs, settings | {"training": options})


def stand_in_batch(inputs: dict[str, Any], size: int, seed: int, share: float = 1.0) -> Batch:
    """Random rows, the last one of weight 0; of each feature the first `share` of its ids."""
    sizes = [f["size"] for f in inputs["features"] if f["size"] is not None]
    numbers = len(inputs["features"]) - len(sizes)
    normal, unit, label = (tf.constant([seed, part]) for part in range(3))
    ids = tf.random.stateless_uniform([size, len(sizes)], unit)
    limits = tf.maximum(1.0, tf.constant(sizes, tf.float32) * share)
    return Batch(
        tf.random.stateless_normal([size, numbers], normal),
        tf.cast(ids * limits, tf.int32),
        _labels(inputs, size, label),
        tf.cast(tf.range(size) < max(1, size - 1), tf.float32),
    )


def _labels(inputs: dict[str, Any], size: int, seed: tf.Tensor) -> tf.Tensor:
    if inputs["problem"] == "regression":
        return tf.random.stateless_normal([size], seed)
    classes = max(2, inputs["num_classes"])
    labels = tf.random.stateless_uniform([size], seed, maxval=classes, dtype=tf.int32)
    return labels if inputs["problem"] == "multiclass" else tf.cast(labels, tf.float32)
