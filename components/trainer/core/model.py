"""The wide-and-deep network (Cheng et al. 2016, arxiv.org/abs/1606.07792) of a feature spec."""

from typing import Any

import keras


def build(inputs: dict[str, Any], settings: dict[str, Any], seed: int) -> keras.Model:
    """Builds the network.

    Args:
      inputs: the feature spec (`components.features.model_inputs`).
      settings: `hidden`, `dropout`, `batch_norm`, `wide` and `l2` as in `configs/*.yaml`.
      seed: of the dropout masks.

    Returns:
      A model from {"numbers": float32 [n, numeric], "ids": int32 [n, categorical]} to logits
      float32 [n, outputs] (a standardised value for regression).
    """
    features = inputs["features"]
    categorical = [f for f in features if f["size"] is not None]
    numbers = keras.Input([len(features) - len(categorical)], name="numbers")
    ids = keras.Input([len(categorical)], name="ids", dtype="int32")
    one_hots = [
        keras.ops.one_hot(ids[:, i], f["size"]) for i, f in enumerate(categorical) if not f["embed"]
    ]
    embedded = [
        keras.layers.Embedding(f["size"], f["embed"], name=f"embedding_{f['name']}")(ids[:, i])
        for i, f in enumerate(categorical)
        if f["embed"]
    ]
    deep = _joined([numbers, *one_hots, *embedded])
    for layer, units in enumerate(settings["hidden"]):
        deep = _hidden_layer(deep, layer, units, settings, seed + layer)
    outputs = max(1, inputs["num_classes"])
    logits = keras.layers.Dense(outputs, name="deep", dtype="float32")(deep)
    if settings["wide"]:
        logits += _wide(numbers, ids, [f["size"] for f in categorical], outputs)
    return keras.Model({"numbers": numbers, "ids": ids}, logits, name="wide_and_deep")


def _hidden_layer(deep: Any, number: int, units: int, settings: dict[str, Any], seed: int) -> Any:
    penalty = keras.regularizers.L2(settings["l2"]) if settings["l2"] else None
    deep = keras.layers.Dense(units, kernel_regularizer=penalty, name=f"hidden_{number}")(deep)
    if settings["batch_norm"]:
        # Over the whole global batch, so that the number of replicas does not matter.
        name = f"batch_norm_{number}"
        deep = keras.layers.BatchNormalization(synchronized=True, name=name)(deep)
    deep = keras.layers.Activation("relu")(deep)
    if settings["dropout"]:
        deep = keras.layers.Dropout(settings["dropout"], seed=seed, name=f"dropout_{number}")(deep)
    return deep


def _wide(numbers: Any, ids: Any, sizes: list[int], outputs: int) -> Any:
    """A linear model over the numbers and the one-hots: a weight for each number and each id.

    All start with zero. The ids of all features are in one table.
    """
    parts = []
    if numbers.shape[-1]:
        linear = keras.layers.Dense(
            outputs, use_bias=False, kernel_initializer="zeros", name="linear", dtype="float32"
        )
        parts.append(linear(numbers))
    if sizes:
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        table = keras.layers.Embedding(
            sum(sizes), outputs, embeddings_initializer="zeros", name="wide", dtype="float32"
        )
        weights = table(ids + keras.ops.array([starts], "int32"))
        parts.append(keras.ops.sum(weights, axis=1))
    return sum(parts[1:], parts[0])


def _joined(parts: list[Any]) -> Any:
    parts = [part for part in parts if part.shape[-1]]
    return keras.ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
