"""A trained model and its Transform graph as one SavedModel (Stateless Serving Function).

Signatures, n rows each:

- `serving_default(examples: string [n])`: serialised tf.Examples -> `predictions`.
- `raw(<column>: [n], ...)`: named columns as in JSON -> `predictions`. Missing is "" for text, NaN
  for floats and the lowest int64 for integers.
- `keyed(key: string [n], <column>: [n], ...)`: the same, and `key` comes back (Keyed Predictions).
- `uncertain(<column>: [n], ...)`: `predictions`, and their `uncertainty`: the standard deviation
  of the members' predictions. Only of a network with several members (Ensembles).
- `distribution(<column>: [n], ...)`: `predictions`, `probabilities` of buckets [n, buckets] with
  their `edges` [n, buckets + 1], and `quantiles` [n, 19]. Only with `model.buckets` (Reframing).
- `quantiles(examples)`: predictions and quantiles side by side, for the Evaluator.
- `explain(<column>: [n], ...)`: `predictions`, `attributions` [n, columns] and `baseline` [n, 1],
  see `components.trainer.explain`. Only with `model.explain` (Explainable Predictions).
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

from components.features.model_inputs import model_inputs
from components.features.names import safe_names
from components.features.table import FeatureTable
from components.features.transform import label_of
from components.trainer.core.data import by_kind, stacked
from components.trainer.core.heads import Distribution, head_of
from components.trainer.core.warm_start import weights_by_name
from components.trainer.explain import Explainer

KEY = "key"


class ServingModule(tf.Module):
    """Everything that the exported graph needs: Transform's graph, the network, no optimizer."""

    def __init__(self, model: keras.Model, transformed: tft.TFTransformOutput, table: FeatureTable):
        """Takes the trained network, Transform's output, and the feature table."""
        super().__init__()
        self.weights = weights_by_name(model)
        self._network = model
        self._table = table
        self._head = head_of(table.problem, model.output_shape[-1])
        self._transform = tf.saved_model.load(transformed.transform_savedmodel_dir)
        self._spec = transformed.raw_feature_spec()
        label = table.label.column
        self._columns = {name: self._spec[name] for name in table.raw_columns()}
        self._safe = safe_names(self._columns)
        self._all_columns = self._columns | {label: self._spec[label]}
        self._inputs = model_inputs(table, transformed)
        self._features = [*table.safe_names().values()]

    def signatures(self, explain: bool) -> dict[str, Callable[..., Any]]:
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
        if explain:
            signatures["explain"] = _graph(self._explain, columns)
        if isinstance(self._head, Distribution):
            signatures["distribution"] = _graph(self._serve_distribution, columns)
            signatures["quantiles"] = _graph(self._quantiles, examples)
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

    def _explain(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        missing = {
            name: tf.constant([spec.default_value], spec.dtype)
            for name, spec in self._columns.items()
        }
        given, nothing = self._network_inputs(self._named(columns)), self._network_inputs(missing)
        explainer = Explainer(self._network, self._head, self._inputs, self._table)
        logits = self._network(given, training=False)
        predictions = self._head.predict(self._network, logits)
        return {"predictions": predictions, **explainer.explain(given, nothing)}

    def _serve_distribution(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self._distribution(self._logits(self._named(columns)))

    def _distribution(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        assert isinstance(self._head, Distribution)
        made = self._head.distribution(self._network, logits)
        return {"predictions": self._head.predict(self._network, logits), **made}

    def _quantiles(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self._logits(tf.io.parse_example(examples, self._columns))
        made = self._distribution(logits)
        return {"quantiles": tf.concat([made["predictions"], made["quantiles"]], axis=1)}

    def _named(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: columns[safe] for name, safe in self._safe.items()}

    def _label_index(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        label = self._table.label.column
        parsed = tf.io.parse_example(examples, {label: self._all_columns[label]})
        index = tf.cast(label_of(parsed[label], self._table), tf.float32)
        return {"label_index": index if index.shape.rank == 2 else index[:, None]}

    @tf.function(autograph=False, reduce_retracing=True)
    def _predict(self, raw: dict[str, Any]) -> tf.Tensor:
        return self._head.predict(self._network, self._logits(raw))

    def _logits(self, raw: dict[str, Any]) -> tf.Tensor:
        return self._network(self._network_inputs(raw), training=False)

    def _network_inputs(self, raw: dict[str, Any]) -> dict[str, tf.Tensor]:
        transformed = self._transformed(raw)
        features = {name: transformed[name] for name in self._features}
        numbers, ids = stacked(features, self._inputs["features"])
        return by_kind(numbers, ids, self._inputs["features"])

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
    model: keras.Model,
    transformed: tft.TFTransformOutput,
    table: FeatureTable,
    folder: str,
    explain: bool = False,
) -> None:
    """Writes the SavedModel to `folder`, with the signature `explain` if it is wanted."""
    module = ServingModule(model, transformed, table)
    tf.saved_model.save(module, folder, signatures=module.signatures(explain))
