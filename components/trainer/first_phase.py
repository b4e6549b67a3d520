"""A small model beside the full one (book pattern: Two-Phase Predictions).

It reads a chosen part of the features, numbers only, and is quantised for LiteRT
(https://ai.google.dev/edge/litert), so that it runs on a device without TensorFlow. Where it is
sure enough, its answer stands; else the full model is asked. How sure is enough is chosen on the
eval rows.
"""

import json
import math
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from components.features.model_inputs import model_inputs
from components.features.table import Bucketized, FeatureTable, Numeric
from components.inference.first_phase import FACTS, FOLDER, MODEL, sureness
from components.trainer.core import data
from components.trainer.core.heads import head_of
from components.trainer.core.job import Job
from components.trainer.core.loop import Training

_MOST, _BISECTIONS = 1e15, 120
"""Numbers beyond are not told apart; so many halvings leave nothing between two float32."""


def add_first_phase(
    folder: str,
    full: keras.Model,
    job: Job,
    table: FeatureTable,
    transformed: tft.TFTransformOutput,
) -> dict[str, Any]:
    """Trains the small model, chooses its threshold, and writes both beside a SavedModel.

    Args:
      folder: of the SavedModel.
      full: the trained network.
      job: of the full model; `model.first_phase` of its settings says what the small one reads.
      table: the feature table.
      transformed: what Transform has made.

    Returns:
      What is written as JSON: `columns` in the order of the model's one input, float32 [1,
      columns], NaN where a value is missing; `threshold`, the probability of the likeliest class
      from which the small model's answer stands; and of the eval rows which share are `answered`
      by it, its `accuracy` on them, `full_accuracy`, the full model's on the same rows, the `bytes`
      of the small model, and the `microseconds` that it takes for a row.
    """
    wanted = job.settings["model"]["first_phase"]
    part = _part(table, wanted["features"])
    inputs, all_inputs = model_inputs(part, transformed), job.inputs
    options = job.settings["training"] | {"warm_start": None}
    keep = (options["rebalance"] or {}).get("keep")
    small_model = {"hidden": wanted["hidden"], "members": 1, "wide": True}
    settings = {"model": job.settings["model"] | small_model, "training": options}
    train_rows = data.load(job.train_files, inputs, math.inf, "", keep)
    eval_rows = data.load(job.eval_files, inputs, math.inf, "")
    training = Training(train_rows, eval_rows, inputs, settings)
    training.run(lambda _: None)
    content = _converted(training.model, part, transformed)
    small, labels = _predictions(training.model, inputs, job.eval_files)
    large, _ = _predictions(full, all_inputs, job.eval_files)
    facts = {
        "columns": part.raw_columns(),
        **_chosen(small, large, labels, wanted["at_least"]),
        "bytes": len(content),
        "microseconds": _microseconds(content, len(part.raw_columns())),
    }
    os.makedirs(os.path.join(folder, FOLDER), exist_ok=True)
    with open(os.path.join(folder, FOLDER, MODEL), "wb") as file:
        file.write(content)
    with open(os.path.join(folder, FOLDER, FACTS), "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=2)
    return facts


def _part(table: FeatureTable, names: Sequence[str]) -> FeatureTable:
    """The table with these features alone."""
    columns = {name: table.columns[name] for name in names}
    return table.model_copy(update={"columns": columns, "crosses": {}})


def _converted(
    network: keras.Model, part: FeatureTable, transformed: tft.TFTransformOutput
) -> bytes:
    """Transform's part and the network as one quantised model, from raw numbers to predictions."""
    columns = part.raw_columns()
    features = model_inputs(part, transformed)["features"]
    head = head_of(part.problem, network.output_shape[-1])
    transform = _Probe(transformed)
    curves = {safe: transform.curve(name, part) for name, safe in part.safe_names().items()}
    places = {safe: columns.index(part.column_of(n)) for n, safe in part.safe_names().items()}

    @tf.function(input_signature=[tf.TensorSpec([1, len(columns)], tf.float32)])
    def predict(numbers: tf.Tensor) -> tf.Tensor:
        made = {name: curve.at(numbers[:, places[name]]) for name, curve in curves.items()}
        floats, ids = data.stacked(made, features)
        logits = network(data.by_kind(floats, ids, features), training=False)
        return head.predict(network, logits)

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [predict.get_concrete_function()], network
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content: bytes = converter.convert()
    return content


class _Curve(NamedTuple):
    """A feature as a function of its number, of operations that LiteRT has."""

    knots: np.ndarray
    """float32, ascending; of a line the numbers that become 0 and 1."""
    missing: float
    kind: str
    """line, position or interval."""
    first: int = 0
    """Of the intervals' ids."""

    def at(self, number: tf.Tensor) -> tf.Tensor:
        """What Transform makes of numbers, [n]; one that is missing is not equal to itself."""
        knots = tf.constant(self.knots)
        if self.kind == "line":
            value = (number - knots[0]) / (knots[1] - knots[0])
        elif self.kind == "position":
            past = (number[:, None] - knots[:-1]) / tf.maximum(knots[1:] - knots[:-1], 1e-30)
            value = tf.reduce_sum(tf.minimum(tf.maximum(past, 0.0), 1.0), axis=1)
        else:
            passed = tf.cast(number[:, None] >= knots, tf.float32)
            value = tf.reduce_sum(passed, axis=1) + float(self.first)
        return tf.where(tf.equal(number, number), value, self.missing)


class _Probe:
    """Finds a feature's curve from what Transform makes of numbers: it never falls."""

    def __init__(self, transformed: tft.TFTransformOutput):
        """Takes Transform's output."""
        self._layer = transformed.transform_features_layer()
        self._spec = transformed.raw_feature_spec()

    def curve(self, name: str, part: FeatureTable) -> _Curve:
        """The curve of a numeric or bucketized feature."""
        feature, column, safe = part.columns[name], part.column_of(name), part.safe_names()[name]

        def made(numbers: np.ndarray) -> np.ndarray:
            return self._transformed(column, numbers)[safe].numpy().astype(np.float64)

        missing = float(made(np.array([np.nan], np.float32))[0])
        if isinstance(feature, Bucketized):
            lowest, highest = made(np.array([-_MOST, _MOST], np.float32))
            levels = np.arange(lowest + 1, highest + 1)
            return _Curve(_first_at(made, levels), missing, "interval", int(lowest))
        if isinstance(feature, Numeric) and feature.scale == "quantile":
            levels = np.concatenate([[np.nextafter(0, 1)], np.arange(1, feature.bins + 1)])
            return _Curve(_first_at(made, levels), missing, "position")
        return _Curve(_first_at(made, np.array([0.0, 1.0])), missing, "line")

    def _transformed(self, column: str, numbers: np.ndarray) -> dict[str, tf.Tensor]:
        raw = {
            name: tf.fill([len(numbers)], tf.constant(one.default_value, one.dtype))
            for name, one in self._spec.items()
        }
        value = numbers
        if self._spec[column].dtype == tf.int64:
            whole = np.nan_to_num(np.floor(numbers)).astype(np.int64)
            value = np.where(np.isnan(numbers), self._spec[column].default_value, whole)
        raw[column] = tf.constant(value, self._spec[column].dtype)
        made: dict[str, tf.Tensor] = self._layer(raw)
        return made


def _first_at(made: Any, levels: np.ndarray) -> np.ndarray:
    """The smallest numbers, float32, at which a function that never falls reaches these levels."""
    low, high = np.full(len(levels), -_MOST), np.full(len(levels), _MOST)
    for _ in range(_BISECTIONS):
        middle = _between(low, high)
        reached = made(middle.astype(np.float32)) >= levels
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high.astype(np.float32)


def _between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Halfway between numbers; by their logarithms, as long as they are far apart."""
    sizes = np.sign(low) * np.log1p(np.abs(low)) + np.sign(high) * np.log1p(np.abs(high))
    far = np.sign(sizes) * np.expm1(np.abs(sizes / 2))
    return np.where(high - low > 1 + np.abs(high) + np.abs(low), far, (low + high) / 2)


def _predictions(
    network: keras.Model, inputs: dict[str, Any], files: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of all rows, in the order of the files whatever the network reads."""
    rows = data.gathered(files, inputs)
    logits = network(data.by_kind(rows.numbers, rows.ids, inputs["features"]), training=False)
    head = head_of(inputs["problem"], network.output_shape[-1])
    return head.predict(network, logits).numpy(), rows.labels.numpy()


def _right(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if predictions.shape[1] == 1:
        return (predictions[:, 0] > 0.5) == (labels > 0.5)
    return predictions.argmax(axis=1) == labels


def _chosen(
    small: np.ndarray, large: np.ndarray, labels: np.ndarray, at_least: float
) -> dict[str, Any]:
    """The lowest threshold above which the small model is right often enough."""
    sure, right = sureness(small), _right(small, labels)
    order = np.argsort(-sure, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(shares >= at_least)
    count = int(good[-1]) + 1 if len(good) else 0
    answered = order[:count]
    return {
        "threshold": float(sure[answered[-1]]) if count else 1.1,
        "answered": count / len(order),
        "accuracy": float(right[answered].mean()) if count else None,
        "full_accuracy": float(_right(large, labels)[answered].mean()) if count else None,
    }


def _microseconds(content: bytes, columns: int) -> float:
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]
    row: np.ndarray = np.zeros([1, columns], np.float32)
    times = 200
    started = time.perf_counter()
    for _ in range(times):
        interpreter.set_tensor(place, row)
        interpreter.invoke()
    return round((time.perf_counter() - started) / times * 1e6, 1)
