"""The `preprocessing_fn` that the feature table stands for (book pattern: Transform).

TFX's Transform runs it over the training split; the graph it makes is inside every exported model,
so training and serving cannot differ. https://www.tensorflow.org/tfx/transform/get_started
"""

import re
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.features.analysis import VocabularyPlan, learn_numbers, learn_vocabularies
from components.features.table import Bucketized, Cross, FeatureTable, Hashed, Numeric, Vocabulary

LABEL = "__label__"
"""The transformed label: float32 [batch], or int64 class ids [batch] for multiclass."""

Tensors = dict[str, tf.Tensor]


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> Tensors:
    """Turns raw columns into model inputs.

    Args:
      inputs: raw columns, sparse [batch, None] (or dense [batch, 1] where the schema has a shape).
      custom_config: `{"table": FeatureTable as a dict}`.

    Returns:
      By feature name float32 [batch] for numeric features, int64 ids [batch] for the others and
      for crosses; the label under `LABEL`.
    """
    table = FeatureTable.model_validate(custom_config["table"])
    learned = _Learned(table, inputs)
    outputs = {name: learned.transformed(name) for name in table.columns}
    for name, cross in table.crosses.items():
        outputs[name] = _crossed(outputs, cross)
    outputs[LABEL] = label_of(inputs[table.label.column], table)
    return outputs


def vocabulary_name(feature: str) -> str:
    """The file name of a feature's vocabulary: its letters, and a checksum if that loses any."""
    plain = re.sub(r"\W", "_", feature, flags=re.ASCII)
    return plain if plain == feature else f"{plain}_{sum(map(ord, feature))}"


def label_of(column: Any, table: FeatureTable) -> tf.Tensor:
    """The label as the model learns it, from the raw column.

    Returns:
      float32 [batch] for binary (0 or 1) and regression, int64 [batch] for multiclass; -1 for a
      value that is not among the classes.
    """
    if table.label.classes is None:
        return _numbers(column)
    classes = tf.constant([str(value) for value in table.label.classes])
    matches = tf.equal(_text(column)[:, None], classes[None, :])
    found = tf.reduce_any(matches, axis=1)
    index = tf.where(found, tf.argmax(matches, axis=1), tf.constant(-1, tf.int64))
    return index if table.problem == "multiclass" else tf.cast(index, tf.float32)


class _Learned:
    """The features of a table with what one pass over the training rows says of them."""

    def __init__(self, table: FeatureTable, inputs: dict[str, Any]):
        self._table = table
        features = table.columns
        self._numbers = {
            column: _numbers(inputs[column]) for column in _columns_of(table, Numeric | Bucketized)
        }
        self._texts = {
            column: _text(inputs[column]) for column in _columns_of(table, Vocabulary | Hashed)
        }
        self._numeric = [n for n, f in features.items() if isinstance(f, Numeric)]
        self._quantiles = {
            n: f.buckets for n, f in features.items() if isinstance(f, Bucketized) and f.buckets
        }
        self._vocabularies = {n: f for n, f in features.items() if isinstance(f, Vocabulary)}
        self._moments, self._boundaries = learn_numbers(
            [self._numbers[table.column_of(name)] for name in self._numeric],
            [(self._numbers[table.column_of(n)], count) for n, count in self._quantiles.items()],
        )
        self._vocabulary_files = learn_vocabularies(
            [self._filled(name, feature) for name, feature in self._vocabularies.items()],
            [
                VocabularyPlan(vocabulary_name(name), f.top_k, f.min_count)
                for name, f in self._vocabularies.items()
            ],
        )

    def transformed(self, name: str) -> tf.Tensor:
        """The feature as the network sees it: float32 or int64, [batch]."""
        feature = self._table.columns[name]
        if isinstance(feature, Numeric):
            return self._scaled(name, feature)
        if isinstance(feature, Bucketized):
            missing, ids = self._bucketized(name, feature)
        else:
            text = self._filled(name, feature)
            missing, ids = tf.equal(text, ""), self._looked_up(text, name, feature)
        return tf.where(missing, tf.zeros_like(ids), ids + 1) if feature.missing == "own" else ids

    def _scaled(self, name: str, feature: Numeric) -> tf.Tensor:
        moments = self._moments[self._numeric.index(name)]
        mean, deviation, low, high = tf.unstack(moments, num=4)
        numbers = self._numbers[self._table.column_of(name)]
        fill = feature.missing if isinstance(feature.missing, float) else mean
        numbers = tf.where(tf.math.is_nan(numbers), fill, numbers)
        if feature.scale == "standard":
            return tf.math.divide_no_nan(numbers - mean, deviation)
        if feature.scale == "minmax":
            return tf.math.divide_no_nan(numbers - low, high - low)
        return numbers

    def _bucketized(self, name: str, feature: Bucketized) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = self._numbers[self._table.column_of(name)]
        missing = tf.math.is_nan(numbers)
        fill = feature.missing if isinstance(feature.missing, float) else 0.0
        if feature.boundaries is not None:
            boundaries = tf.constant(feature.boundaries, tf.float32)
        else:
            boundaries = self._boundaries[list(self._quantiles).index(name)]
        filled = tf.where(missing, fill, numbers)
        return missing, tf.searchsorted(boundaries, filled, side="right", out_type=tf.int64)

    def _filled(self, name: str, feature: Vocabulary | Hashed) -> tf.Tensor:
        """The text, with the value that stands for a missing one where the policy names one."""
        text = self._texts[self._table.column_of(name)]
        if feature.missing in ("own", "error"):
            return text
        return tf.where(tf.equal(text, ""), str(feature.missing), text)

    def _looked_up(self, text: tf.Tensor, name: str, feature: Vocabulary | Hashed) -> tf.Tensor:
        if isinstance(feature, Hashed):
            return tft.hash_strings(text, feature.buckets)
        file = self._vocabulary_files[list(self._vocabularies).index(name)]
        return tft.apply_vocabulary(text, file, num_oov_buckets=feature.oov_buckets)


def _columns_of(table: FeatureTable, kinds: Any) -> list[str]:
    return sorted({table.column_of(n) for n, f in table.columns.items() if isinstance(f, kinds)})


def _crossed(outputs: Tensors, cross: Cross) -> tf.Tensor:
    parts = [tf.strings.as_string(outputs[name]) for name in cross.of]
    return tft.hash_strings(tf.strings.join(parts, separator="_"), cross.buckets)


def _numbers(column: Any) -> tf.Tensor:
    """The column as float32 [batch], NaN where it is missing."""
    if isinstance(column, tf.SparseTensor):
        column = tf.SparseTensor(
            column.indices, tf.cast(column.values, tf.float32), _one_wide(column)
        )
        column = tf.sparse.to_dense(column, default_value=float("nan"))
    return tf.cast(tf.reshape(column, [-1]), tf.float32)


def _text(column: Any) -> tf.Tensor:
    """The column as string [batch], empty where it is missing."""
    if isinstance(column, tf.SparseTensor):
        column = tf.SparseTensor(column.indices, _strings(column.values), _one_wide(column))
        return tf.reshape(tf.sparse.to_dense(column, default_value=""), [-1])
    return _strings(tf.reshape(column, [-1]))


def _strings(values: tf.Tensor) -> tf.Tensor:
    return values if values.dtype == tf.string else tf.strings.as_string(values)


def _one_wide(column: tf.SparseTensor) -> tf.Tensor:
    return tf.stack([column.dense_shape[0], 1])
