"""What each problem type means: its loss, its metrics, and what the logits stand for.

Logits are float32 [n, outputs], or [n, members, outputs] of a network with several members: then a
row's loss is the mean of the members' losses, and its prediction the mean of their predictions.
"""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

LEVELS = 19
"""Quantiles of a `Distribution`: 0.05, 0.1, ..., 0.95."""


class Head:
    """Binary classification; the other problem types are its subclasses."""

    loss: keras.losses.Loss = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)

    def __init__(self, outputs: int = 1):
        """Takes the number of outputs."""
        self.outputs = outputs

    def metrics(self) -> dict[str, keras.metrics.Metric]:
        """Fresh metrics of predictions, by the name that settings use."""
        return {"auc": keras.metrics.AUC(), "accuracy": keras.metrics.BinaryAccuracy()}

    def prepare(self, model: keras.Model, label: dict[str, Any]) -> None:
        """Gives the model what the head must know of the training labels (`data.described`)."""

    def losses(self, model: keras.Model, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """The loss of each row, float32 [n]."""
        targets = self.targets(model, labels)
        if logits.shape.rank == 2:
            return self.loss(targets, logits)
        members, outputs = logits.shape[1:]
        repeated = tf.repeat(targets, members, axis=0)
        each = self.loss(repeated, tf.reshape(logits, [-1, outputs]))
        return tf.reduce_mean(tf.reshape(each, [-1, members]), axis=1)

    def predict(self, model: keras.Model, logits: tf.Tensor) -> tf.Tensor:
        """Predictions, float32 [n, outputs]: probabilities, or values in the label's units."""
        each = self.activated(model, logits)
        return each if logits.shape.rank == 2 else tf.reduce_mean(each, axis=1)

    def uncertainty(self, model: keras.Model, logits: tf.Tensor) -> tf.Tensor:
        """Standard deviation of the members' predictions, float32 [n, outputs]; 0 of one member."""
        each = self.activated(model, logits)
        return tf.zeros_like(each) if logits.shape.rank == 2 else tf.math.reduce_std(each, axis=1)

    def targets(self, model: keras.Model, labels: tf.Tensor) -> tf.Tensor:
        """What the network learns for each label, [n, 1], or [n, outputs]."""
        return labels[:, None]

    def activated(self, model: keras.Model, logits: tf.Tensor) -> tf.Tensor:
        """Predictions of each member, of the logits' shape but for the last dimension."""
        return tf.sigmoid(logits)

    def measured(self, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor) -> Any:
        """Labels, predictions and weights as the metrics take them."""
        return labels[:, None], predictions, weights

    def first_bias(self, label: dict[str, Any]) -> list[float]:
        """The logits of a prediction that knows nothing but the classes' shares, [outputs]."""
        negative, positive = label["counts"]
        return [math.log(positive / negative)]

    def offsets(self, ratios: list[float]) -> list[float]:
        """What training adds to the logits where the classes count otherwise than they are.

        With loss weights and sampling a network learns p * ratio. Added while it trains, and not
        when it predicts, the logarithms leave it p (Menon et al. 2021, arxiv.org/abs/2007.07314).

        Args:
          ratios: by class, the loss weight times the share of its rows that are kept.

        Returns:
          [outputs].
        """
        return [math.log(ratios[1] / ratios[0])]


class Multiclass(Head):
    """One of several classes; labels are int class ids."""

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    def metrics(self) -> dict[str, keras.metrics.Metric]:
        """Fresh metrics of predictions, by the name that settings use."""
        return {"accuracy": keras.metrics.SparseCategoricalAccuracy()}

    def activated(self, model: keras.Model, logits: tf.Tensor) -> tf.Tensor:
        """Probabilities of the classes, of the logits' shape."""
        return tf.nn.softmax(logits)

    def first_bias(self, label: dict[str, Any]) -> list[float]:
        """See `Head`; a class without a row counts as half a row."""
        counts = [*label["counts"], *[0] * (self.outputs - len(label["counts"]))]
        return [math.log(max(count, 0.5) / sum(counts)) for count in counts]

    def offsets(self, ratios: list[float]) -> list[float]:
        """See `Head`."""
        return [math.log(ratio) for ratio in ratios]


class Multilabel(Head):
    """Any of several classes (book pattern: Multilabel); labels are 0 and 1, float32 [n, outputs].

    A row's loss is the mean over its classes; metrics are over all pairs of a row and a class.
    """

    def targets(self, model: keras.Model, labels: tf.Tensor) -> tf.Tensor:
        """The labels."""
        return labels

    def measured(self, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor) -> Any:
        """Each class of each row is one."""
        weights = tf.repeat(weights, self.outputs)
        return tf.reshape(labels, [-1, 1]), tf.reshape(predictions, [-1, 1]), weights


class Regression(Head):
    """A number. The network learns it standardised; mean and deviation travel with the weights."""

    loss = keras.losses.MeanSquaredError(reduction=None)

    def metrics(self) -> dict[str, keras.metrics.Metric]:
        """Fresh metrics of predictions, by the name that settings use."""
        return {"mae": keras.metrics.MeanAbsoluteError()}

    def prepare(self, model: keras.Model, label: dict[str, Any]) -> None:
        """Adds the label's mean and deviation to the model as untrained weights."""
        _keep(model, "label_mean", [label["mean"]], ())
        _keep(model, "label_deviation", [label["deviation"] or 1.0], ())

    def targets(self, model: Any, labels: tf.Tensor) -> tf.Tensor:
        """The labels in standard deviations from their mean: losses are squared errors of these."""
        return ((labels - model.label_mean) / model.label_deviation)[:, None]

    def activated(self, model: Any, logits: tf.Tensor) -> tf.Tensor:
        """Values in the label's units, of the logits' shape."""
        return logits * model.label_deviation + model.label_mean


class Distribution(Regression):
    """A number as a distribution over buckets (book pattern: Reframing).

    The outputs are the buckets. Their edges are evenly taken from the distinct ones of the training
    labels' quantiles, and travel with the weights. A prediction is the distribution's mean.
    """

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    def prepare(self, model: keras.Model, label: dict[str, Any]) -> None:
        """Adds the buckets' edges to the model, float32 [outputs + 1]."""
        known = np.unique(label["quantiles"])
        places = np.linspace(0, len(known) - 1, self.outputs + 1)
        _keep(model, "label_edges", np.interp(places, np.arange(len(known)), known).tolist())

    def targets(self, model: Any, labels: tf.Tensor) -> tf.Tensor:
        """The bucket of each label, int32 [n, 1]."""
        inner = tf.convert_to_tensor(model.label_edges)[1:-1]
        return tf.searchsorted(inner, labels, side="right")[:, None]

    def activated(self, model: Any, logits: tf.Tensor) -> tf.Tensor:
        """The mean of each distribution, [..., 1]."""
        edges = tf.convert_to_tensor(model.label_edges)
        return tf.matmul(tf.nn.softmax(logits), ((edges[1:] + edges[:-1]) / 2)[:, None])

    def distribution(self, model: Any, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """The whole distribution.

        Returns:
          `probabilities` [n, outputs] of the buckets, their `edges` [n, outputs + 1], the same in
          each row, and `quantiles` [n, LEVELS], linear within a bucket.
        """
        shares = tf.nn.softmax(logits)
        shares = shares if logits.shape.rank == 2 else tf.reduce_mean(shares, axis=1)
        rows = tf.shape(shares)[0]
        edges = tf.repeat(tf.convert_to_tensor(model.label_edges)[None], rows, axis=0)
        below = tf.pad(tf.cumsum(shares, axis=1), [[0, 0], [1, 0]])
        levels = tf.repeat(tf.linspace(0.0, 1.0, LEVELS + 2)[None, 1:-1], rows, axis=0)
        last = tf.searchsorted(below[:, 1:-1], levels) if self.outputs > 1 else 0
        start, end = (tf.gather(edges, last + i, batch_dims=1) for i in (0, 1))
        low = tf.gather(below, last, batch_dims=1)
        share = tf.gather(shares, last, batch_dims=1)
        within = tf.clip_by_value(tf.math.divide_no_nan(levels - low, share), 0.0, 1.0)
        quantiles = start + within * (end - start)
        return {"probabilities": shares, "edges": edges, "quantiles": quantiles}


def _keep(model: Any, name: str, values: list[float], shape: Any = None) -> None:
    """Adds values to the model as untrained weights."""
    shape = (len(values),) if shape is None else shape

    def initial(shape: Any, dtype: Any = None) -> Any:
        return keras.ops.reshape(keras.ops.array(values, "float32"), shape)

    weight = model.add_weight(shape=shape, initializer=initial, trainable=False, name=name)
    setattr(model, name, weight)


HEADS: dict[str, type[Head]] = {
    "binary": Head,
    "multiclass": Multiclass,
    "multilabel": Multilabel,
    "regression": Regression,
}


def head_of(problem: str, outputs: int) -> Head:
    """The head of a network with so many outputs."""
    kind = Distribution if problem == "regression" and outputs > 1 else HEADS[problem]
    return kind(outputs)
