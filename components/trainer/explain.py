"""Which column moved a prediction (book pattern: Explainable Predictions): integrated gradients.

The path leads from a row in which every value is missing to the row that is explained, within what
the network's first layers read: numbers, one-hot vectors and embeddings (Sundararajan, Taly and Yan
2017, arxiv.org/abs/1703.01365). What a feature has moved belongs to its raw column; of a cross, an
equal share to each of its columns.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.features.table import FeatureTable
from components.trainer.core.data import grouped
from components.trainer.core.heads import Head
from components.trainer.core.model import owners

_POINTS = 32
"""Of the Gauss-Legendre quadrature along the path."""


class Explainer:
    """The gradients of a network by raw column."""

    def __init__(
        self, network: keras.Model, head: Head, inputs: dict[str, Any], table: FeatureTable
    ):
        """Takes the trained network, its head, the feature spec, and the table."""
        self._network, self._head = network, head
        names = [layer.name for layer in network.layers if layer.name.startswith("block_")]
        names += [layer.name for layer in network.layers if layer.name == "wide"]
        blocks = [network.get_layer(name).output for name in names]
        self._first = keras.Model(network.input, blocks)
        self._rest = keras.Model(blocks, network.output)
        features = [f["name"] for f in inputs["features"]]
        shares = _shares(table)
        self._owners = [
            tf.constant(_owner(name, block.shape[1], inputs, features) @ shares, tf.float32)
            for name, block in zip(names, blocks, strict=True)
        ]

    def explain(self, given: dict[str, Any], missing: dict[str, Any]) -> dict[str, tf.Tensor]:
        """What each raw column adds to the predictions.

        Args:
          given: the network's inputs, [n, ...].
          missing: those of one row in which every value is missing, [1, ...].

        Returns:
          `attributions` [n, columns], the columns in order of their names: they add up to the
          difference between the prediction and `baseline` [n, 1], the one for `missing`. Of several
          classes it is the likeliest one's probability.
        """
        ends = self._first(given, training=False)
        starts = [tf.repeat(start, tf.shape(ends[0])[0], axis=0) for start in self._first(missing)]
        logits = self._network(given, training=False)
        likeliest = tf.argmax(self._head.predict(self._network, logits), axis=1)

        def target(blocks: list[tf.Tensor]) -> tf.Tensor:
            predictions = self._head.predict(self._network, self._rest(blocks, training=False))
            return tf.gather(predictions, likeliest, batch_dims=1)

        nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
        points = tf.constant((nodes + 1) / 2, tf.float32), tf.constant(weights / 2, tf.float32)

        def add(sums: list[tf.Tensor], point: tuple[tf.Tensor, tf.Tensor]) -> list[tf.Tensor]:
            place, weight = point
            blocks = [
                s + tf.cast(place, s.dtype) * (e - s) for s, e in zip(starts, ends, strict=True)
            ]
            with tf.GradientTape() as tape:
                tape.watch(blocks)
                value = tf.reduce_sum(target(blocks))
            gradients = tape.gradient(value, blocks, unconnected_gradients="zero")
            return [
                s + weight * tf.cast(g, tf.float32) for s, g in zip(sums, gradients, strict=True)
            ]

        sums = tf.foldl(add, points, [tf.zeros_like(end, tf.float32) for end in ends])
        moved = [tf.cast(e - s, tf.float32) * g for s, e, g in zip(starts, ends, sums, strict=True)]
        made = tf.add_n([_by_part(m) @ owner for m, owner in zip(moved, self._owners, strict=True)])
        baseline = target(starts)[:, None]
        left = target(ends)[:, None] - baseline - tf.reduce_sum(made, axis=1, keepdims=True)
        size = tf.abs(made)  # what the quadrature missed is shared out in proportion
        total = tf.reduce_sum(size, axis=1, keepdims=True)
        made += left * tf.math.divide_no_nan(size, total)
        return {"attributions": made, "baseline": baseline}


def _by_part(moved: tf.Tensor) -> tf.Tensor:
    """[n, parts]; the wide part's weights are [n, features, outputs]."""
    return moved if moved.shape.rank == 2 else tf.reduce_sum(moved, axis=2)


def _owner(block: str, parts: int, inputs: dict[str, Any], features: list[str]) -> np.ndarray:
    """[parts of the block, features]: 1 where a part belongs to a feature."""
    plain, _, categorical, _ = grouped(inputs["features"])
    if block == "block_numbers":
        names = [plain[i]["name"] for i in owners([f.get("bins") for f in plain])]
    elif block == "wide":
        names = [f["name"] for f in categorical]
    else:
        names = [block.removeprefix("block_")] * parts
    return np.array([[float(name == feature) for feature in features] for name in names])


def _shares(table: FeatureTable) -> np.ndarray:
    """[features and crosses, raw columns]: which share of a feature is a column's."""
    columns = table.raw_columns()
    parts = {name: table.columns_of(name) for name in table.columns}
    for name, cross in table.crosses.items():
        parts[name] = [table.column_of(part) for part in cross.of]
    return np.array([[of.count(column) / len(of) for column in columns] for of in parts.values()])
