"""A trained model and its Transform graph as one SavedModel (Stateless Serving Function).

Signatures, n rows each:

- `serving_default(examples: string [n])`: serialised tf.Examples -> `predictions`.
- `raw(<column>: [n], ...)`: named columns as in JSON -> `predictions`. Missing is "" for text, NaN
  for floats and the lowest int64 for integers.
- `keyed(key: string [n], <column>: [n], ...)`: the same, and `key` comes back (Keyed Predictions).
- `uncertain(<column>: [n], ...)`: `predictions`, and their `uncertainty`: the standard deviation
  of the members' predictions. Only of a network with several members (Ensembles).
- `transform_features(examples)`: what the network sees, and the label.
- `label_index(examples)`: the label as the Evaluator compares it, where it has classes.

A column's input is called by its safe name (`components.features.names`), most often its own.
`predictions` is float32 [n, 1] (a probability, or a value in the label's units), or [n, classes].
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

from components.features.names import safe_names
from components.features.table import FeatureTable
from components.features.transform import label_of
from components.trainer.core.heads import HEADS
from components.trainer.core.warm_start import weights_by_name

KEY = "key"


class ServingModule(tf.Module):
    """Everything that the exported graph needs: Transform's graph, the network, no optimizer."""

    def __init__(self, model: keras.Model, transformed: tft.TFTransformOutput, table: FeatureTable):
        """Takes the trained network, Transform's output, and the feature table."""
        super().__init__()
        self.weights = weights_by_name(model)
        self._network = model
        self._table = table
        self._head = HEADS[table.problem]()
        self._transform = tf.saved_model.load(transformed.transform_savedmodel_dir)
        self._spec = transformed.raw_feature_spec()
        label = table.label.column
        self._columns = {name: self._spec[name] for name in table.raw_columns()}
        self._safe = safe_names(self._columns)
        self._all_columns = self._columns | {label: self._spec[label]}
        self._features = [*table.safe_names().values()]

    def signatures(self) -> dict[str, Callable[..., Any]]:
        """The signatures by name, ready for `tf.saved_model.save`."""
        columns = {
            safe: tf.TensorSpec([None], self._columns[name].dtype, name=safe)
            for name, safe in self._safe.items()
        }
        examples = tf.TensorSpec([None], tf.string, name="examples")
        key = tf.TensorSpec([None], tf.string, name=KEY)
        read, every = tf.io.parse_example, self._all_columns
        raw = _graph(lambda columns: self._answer(self._named(columns)), columns)
        signatures = {
            "serving_default": _graph(lambda e: self._answer(read(e, self._columns)), examples),
            "raw": raw,
            # Calls the other's graph: a second copy of it would have to be loaded, too.
            "keyed": _graph(
                lambda key, columns: {KEY: tf.identity(key), **raw(columns)}, key, columns
            ),
            "transform_features": _graph(lambda e: self._transformed(read(e, every)), examples),
        }
        if len(self._network.output_shape) > 2:
            signatures["uncertain"] = _graph(self._serve_uncertain, columns)
        if self._table.label.classes is not None:
            signatures["label_index"] = _graph(self._label_index, examples)
        return signatures

    def _answer(self, row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"predictions": self._predict(row)}

    def _serve_uncertain(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logits = self._logits(self._named(columns))
        return {
            "predictions": self._head.predict(self._network, logits),
            "uncertainty": self._head.uncertainty(self._network, logits),
        }

    def _named(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: columns[safe] for name, safe in self._safe.items()}

    def _label_index(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        label = self._table.label.column
        parsed = tf.io.parse_example(examples, {label: self._all_columns[label]})
        index = tf.cast(label_of(parsed[label], self._table), tf.float32)
        return {"label_index": index[:, None]}

    @tf.function(autograph=False, reduce_retracing=True)
    def _predict(self, raw: dict[str, Any]) -> tf.Tensor:
        return self._head.predict(self._network, self._logits(raw))

    def _logits(self, raw: dict[str, Any]) -> tf.Tensor:
        transformed = self._transformed(raw)
        features = {name: transformed[name] for name in self._features}
        numbers = [v for v in features.values() if v.dtype == tf.float32]
        ids = [tf.cast(v, tf.int32) for v in features.values() if v.dtype != tf.float32]
        rows = tf.shape(next(iter(features.values())))[0]
        return self._network(
            {
                "numbers": tf.stack(numbers, 1) if numbers else tf.zeros([rows, 0]),
                "ids": tf.stack(ids, 1) if ids else tf.zeros([rows, 0], tf.int32),
            },
            training=False,
        )

    def _transformed(self, raw: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Runs Transform's graph; columns that no feature needs are missing."""
        rows = tf.shape(next(iter(raw.values())))
        absent = {
            name: tf.fill(rows, tf.constant(spec.default_value, spec.dtype))
            for name, spec in self._spec.items()
            if name not in raw
        }
        transformed: dict[str, tf.Tensor] = self._transform.transform_fn(raw | absent)
        return transformed


def _graph(function: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
    """A signature's graph. It has no Python control flow: AutoGraph would only cost seconds."""
    return tf.function(function, signature, autograph=False)


def export(
    model: keras.Model, transformed: tft.TFTransformOutput, table: FeatureTable, folder: str
) -> None:
    """Writes the SavedModel to `folder`."""
    module = ServingModule(model, transformed, table)
    tf.saved_model.save(module, folder, signatures=module.signatures())
