"""The `preprocessing_fn` that the feature table stands for (book pattern: Transform).

TFX's Transform runs it over the training split; the graph it makes is inside every exported model,
so training and serving cannot differ. https://www.tensorflow.org/tfx/transform/get_started
"""

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.features.analysis import (
    RangePlan,
    VocabularyPlan,
    learn_numbers,
    learn_vocabularies,
)
from components.features.dates import part_ids
from components.features.missing import MISSING
from components.features.names import safe_names
from components.features.scaling import scaled
from components.features.table import (
    Bucketized,
    Cross,
    Date,
    FeatureTable,
    Hashed,
    Image,
    Numeric,
    Prediction,
    Text,
    Vocabulary,
)

LABEL = "__label__"
"""The transformed label, as `label_of` has it."""

_KINDS = {tf.string: "BYTES", tf.int64: "INT", tf.float32: "FLOAT"}
"""The schema's types."""

Tensors = dict[str, tf.Tensor]


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> Tensors:
    """Turns raw columns into model inputs.

    Args:
      inputs: raw columns, [batch], with `missing.MISSING` in their gaps; or sparse [batch, None].
      custom_config: `{"table": FeatureTable as a dict}`.

    Returns:
      By the feature's safe name float32 [batch] for numeric features, int64 ids [batch] for
      categories and crosses, int64 [batch, tokens] for texts (0 behind the last word), float32
      [batch, height * width * channels] in [0, 1] for images; the label under `LABEL`.
    """
    table = FeatureTable.model_validate(custom_config["table"])
    learned = _Learned(table, inputs)
    outputs = {name: learned.transformed(name) for name in table.columns}
    for name, cross in table.crosses.items():
        outputs[name] = _crossed(outputs, cross)
    named = {safe: outputs[name] for name, safe in table.safe_names().items()}
    return named | {LABEL: label_of(inputs[table.label.column], table)}


def label_of(column: Any, table: FeatureTable) -> tf.Tensor:
    """The label as the model learns it, from the raw column.

    Returns:
      float32 [batch] for binary (0 or 1) and regression, int64 [batch] for multiclass, float32
      [batch, classes] of 0 and 1 for multilabel; -1 for a value that is not among the classes.
    """
    if table.label.classes is None:
        return _numbers(column)
    if table.problem == "multilabel":
        return _label_set(_text(column), table)
    classes = tf.constant(table.label.values(_KINDS[column.dtype]), column.dtype)
    matches = tf.equal(_dense(column)[:, None], classes[None, :])
    found = tf.reduce_any(matches, axis=1)
    index = tf.where(found, tf.argmax(matches, axis=1), tf.constant(-1, tf.int64))
    return index if table.problem == "multiclass" else tf.cast(index, tf.float32)


def _label_set(text: tf.Tensor, table: FeatureTable) -> tf.Tensor:
    parts = tf.strings.strip(tf.strings.split(text, table.label.separator))
    named = tf.ragged.boolean_mask(parts, tf.not_equal(parts, ""))
    classes = table.label.values("BYTES")
    there = [tf.reduce_any(tf.equal(named, name), axis=1) for name in classes]
    known = [tf.reduce_sum(tf.cast(tf.equal(named, name), tf.int64), axis=1) for name in classes]
    is_known = tf.equal(tf.add_n(known), named.row_lengths())
    labels = tf.cast(tf.stack(there, axis=1), tf.float32)
    return tf.where(is_known[:, None], labels, -tf.ones_like(labels))


class _Learned:
    """The features of a table with what one pass over the training rows says of them."""

    def __init__(self, table: FeatureTable, inputs: dict[str, Any]):
        self._table, self._inputs = table, inputs
        features = table.columns
        self._numbers = {
            column: _numbers(inputs[column]) for column in _columns_of(table, Numeric | Bucketized)
        }
        self._texts = {
            column: _text(inputs[column]) for column in _columns_of(table, Vocabulary | Hashed)
        }
        numeric = {n: f for n, f in features.items() if isinstance(f, Numeric | Prediction)}
        for name, feature in numeric.items():
            if isinstance(feature, Prediction):
                columns = {column: _dense(inputs[column]) for column in feature.columns}
                self._numbers[name] = _predicted(columns, feature, table.safe_names()[name])
        numbers = [self._numbers[table.column_of(name)] for name in numeric]
        plans = {
            n: RangePlan(f.buckets)
            for n, f in features.items()
            if isinstance(f, Bucketized) and f.buckets
        }
        plans |= {n: RangePlan(f.bins, True) for n, f in numeric.items() if f.scale == "quantile"}
        self._vocabularies = {n: f for n, f in features.items() if isinstance(f, Vocabulary)}
        moments, cuts = learn_numbers(
            numbers,
            [(self._numbers[table.column_of(n)], plan) for n, plan in plans.items()],
        )
        self._cuts = dict(zip(plans, cuts, strict=True))
        edges = [self._cuts[name] for name, plan in plans.items() if plan.edges]
        made = scaled(numbers, [*numeric.values()], moments[: len(numeric)], edges)
        self._scaled = dict(zip(numeric, made, strict=True))
        self._files = self._learn_vocabularies()

    def _learn_vocabularies(self) -> dict[str, tf.Tensor]:
        """The path of each vocabulary's file, by feature."""
        safe = self._table.safe_names()
        files = learn_vocabularies(
            [self._filled(name, feature) for name, feature in self._vocabularies.items()],
            [
                VocabularyPlan(safe[name], f.top_k, f.min_count)
                for name, f in self._vocabularies.items()
            ],
        )
        return dict(zip(self._vocabularies, files, strict=True))

    def transformed(self, name: str) -> tf.Tensor:
        """The feature as the network sees it."""
        feature = self._table.columns[name]
        if isinstance(feature, Numeric | Prediction):
            return self._scaled[name]
        if isinstance(feature, Text):
            safe = self._table.safe_names()[name]
            return _words(_text(self._inputs[self._table.column_of(name)]), feature, safe)
        if isinstance(feature, Image):
            return _pixels(_dense(self._inputs[self._table.column_of(name)]), feature)
        if isinstance(feature, Bucketized):
            missing, ids = self._bucketized(name, feature)
        elif isinstance(feature, Date):
            missing, ids = part_ids(_dense(self._inputs[self._table.column_of(name)]), feature)
        else:
            text = self._filled(name, feature)
            missing, ids = tf.equal(text, ""), self._looked_up(text, name, feature)
        return tf.where(missing, tf.zeros_like(ids), ids + 1) if feature.missing == "own" else ids

    def _bucketized(self, name: str, feature: Bucketized) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = self._numbers[self._table.column_of(name)]
        missing = tf.math.is_nan(numbers)
        fill = feature.missing if isinstance(feature.missing, float) else 0.0
        if feature.boundaries is not None:
            boundaries = tf.constant(feature.boundaries, tf.float32)
        else:
            boundaries = self._cuts[name]
        filled = tf.where(missing, fill, numbers)
        return missing, tf.searchsorted(boundaries, filled, side="right", out_type=tf.int64)

    def _filled(self, name: str, feature: Vocabulary | Hashed) -> tf.Tensor:
        """The text, with the value that stands for a missing one where the policy names one."""
        text = self._texts[self._table.column_of(name)]
        if feature.tidy:
            text = tf.strings.lower(tf.strings.strip(text), encoding="utf-8")
        if feature.missing in ("own", "error"):
            return text
        return tf.where(tf.equal(text, ""), str(feature.missing), text)

    def _looked_up(self, text: tf.Tensor, name: str, feature: Vocabulary | Hashed) -> tf.Tensor:
        if isinstance(feature, Hashed):
            return tft.hash_strings(text, feature.buckets)
        return tft.apply_vocabulary(text, self._files[name], num_oov_buckets=feature.oov_buckets)


def _words(text: tf.Tensor, feature: Text, file: str) -> tf.Tensor:
    """The ids of the first words from 1 on, int64 [batch, tokens]; 0 behind the last one."""
    plain = tf.strings.regex_replace(
        tf.strings.lower(text, encoding="utf-8"), r"[^\p{L}\p{N}]+", " "
    )
    words = tf.strings.split(tf.strings.strip(plain))[:, : feature.tokens]
    if feature.buckets is not None:
        ids = tft.hash_strings(words.flat_values, feature.buckets)
    else:
        learned = tft.vocabulary(words.flat_values, top_k=feature.top_k, vocab_filename=file)
        ids = tft.apply_vocabulary(words.flat_values, learned, num_oov_buckets=1)
    made = words.with_flat_values(ids + 1).to_tensor(0, shape=[None, feature.tokens])
    return tf.ensure_shape(made, [None, feature.tokens])


def _predicted(columns: Tensors, feature: Prediction, name: str) -> tf.Tensor:
    """What another version predicts, float32 [batch]; it becomes a part of Transform's graph."""
    folder = str(feature.folder)
    model = tft.make_and_track_object(lambda: tf.saved_model.load(folder), name=f"model_{name}")
    raw = model.signatures["raw"]
    specs = raw.structured_input_signature[1]
    safe = safe_names(columns)
    given = {safe[c]: tf.cast(v, specs[safe[c]].dtype) for c, v in columns.items()}
    return raw(**given)["predictions"][:, feature.output]


def _pixels(column: tf.Tensor, feature: Image) -> tf.Tensor:
    """The resized pictures, float32 [batch, height * width * channels] in [0, 1]."""
    height, width = feature.size

    def resized(content: tf.Tensor) -> tf.Tensor:
        if feature.source == "path":
            content = tf.io.read_file(content)
        else:
            safe = tf.strings.regex_replace(content, r"\+", "-")
            content = tf.io.decode_base64(tf.strings.regex_replace(safe, "/", "_"))
        image = tf.io.decode_image(content, feature.channels, expand_animations=False)
        image.set_shape([None, None, feature.channels])
        return tf.image.resize(image, [height, width], antialias=True) / 255.0

    def one(content: tf.Tensor) -> tf.Tensor:
        shape = [height, width, feature.channels]
        return tf.cond(tf.equal(content, ""), lambda: tf.zeros(shape), lambda: resized(content))

    made = tf.map_fn(one, column, fn_output_signature=tf.float32)
    return tf.reshape(made, [-1, height * width * feature.channels])


def _columns_of(table: FeatureTable, kinds: Any) -> list[str]:
    return sorted({table.column_of(n) for n, f in table.columns.items() if isinstance(f, kinds)})


def _crossed(outputs: Tensors, cross: Cross) -> tf.Tensor:
    parts = [tf.strings.as_string(outputs[name]) for name in cross.of]
    return tft.hash_strings(tf.strings.join(parts, separator="_"), cross.buckets)


def _numbers(column: Any) -> tf.Tensor:
    """The column as float32 [batch], NaN where it is missing."""
    column = _dense(column)
    numbers = tf.cast(column, tf.float32)
    return numbers if column.dtype == tf.float32 else _filled_up(column, numbers, float("nan"))


def _text(column: Any) -> tf.Tensor:
    """The column as string [batch], empty where it is missing."""
    column = _dense(column)
    if column.dtype == tf.string:
        return column
    return _filled_up(column, tf.strings.as_string(column), "")


def _filled_up(column: tf.Tensor, converted: tf.Tensor, value: Any) -> tf.Tensor:
    is_float = column.dtype == tf.float32
    missing = tf.math.is_nan(column) if is_float else tf.equal(column, MISSING["INT"])
    return tf.where(missing, value, converted)


def _dense(column: Any) -> tf.Tensor:
    """One value a row, [batch]."""
    if isinstance(column, tf.SparseTensor):
        one_wide = tf.stack([column.dense_shape[0], 1])
        column = tf.SparseTensor(column.indices, column.values, one_wide)
        column = tf.sparse.to_dense(column, default_value=MISSING[_KINDS[column.dtype]])
    return tf.reshape(column, [-1]) if column.shape.rank != 1 else column
