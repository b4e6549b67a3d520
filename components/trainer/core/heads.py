"""What each problem type means: its loss, its metrics, and what the logits stand for.

Logits are float32 [n, outputs], or [n, members, outputs] of a network with several members: then a
row's loss is the mean of the members' losses, and its prediction the mean of their predictions.
"""

from typing import Any

import keras
import tensorflow as tf


class Head:
    """Binary classification; the other problem types are its subclasses."""

    loss: keras.losses.Loss = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)

    def metrics(self) -> dict[str, keras.metrics.Metric]:
        """Fresh metrics of predictions, by the name that settings use."""
        return {"auc": keras.metrics.AUC(), "accuracy": keras.metrics.BinaryAccuracy()}

    def prepare(self, model: keras.Model, label_mean: float, label_deviation: float) -> None:
        """Gives the model what the head must know of the training labels."""

    def losses(self, model: keras.Model, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """The loss of each row, float32 [n]."""
        targets = self.targets(model, labels)
        if logits.shape.rank == 2:
            return self.loss(targets[:, None], logits)
        members, outputs = logits.shape[1:]
        repeated = tf.repeat(targets, members)[:, None]
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
        """What the network learns for each label, [n]."""
        return labels

    def activated(self, model: keras.Model, logits: tf.Tensor) -> tf.Tensor:
        """Predictions of each member, of the logits' shape."""
        return tf.sigmoid(logits)


class Multiclass(Head):
    """One of several classes; labels are int64 class ids."""

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    def metrics(self) -> dict[str, keras.metrics.Metric]:
        """Fresh metrics of predictions, by the name that settings use."""
        return {"accuracy": keras.metrics.SparseCategoricalAccuracy()}

    def activated(self, model: keras.Model, logits: tf.Tensor) -> tf.Tensor:
        """Probabilities of the classes, of the logits' shape."""
        return tf.nn.softmax(logits)


class Regression(Head):
    """A number. The network learns it standardised; mean and deviation travel with the weights."""

    loss = keras.losses.MeanSquaredError(reduction=None)

    def metrics(self) -> dict[str, keras.metrics.Metric]:
        """Fresh metrics of predictions, by the name that settings use."""
        return {"mae": keras.metrics.MeanAbsoluteError()}

    def prepare(self, model: keras.Model, label_mean: float, label_deviation: float) -> None:
        """Adds the label's mean and deviation to the model as untrained weights."""
        values = {"label_mean": label_mean, "label_deviation": label_deviation or 1.0}
        for name, value in values.items():
            initial = keras.initializers.Constant(value)
            weight = model.add_weight(shape=(), initializer=initial, trainable=False, name=name)
            setattr(model, name, weight)

    def targets(self, model: Any, labels: tf.Tensor) -> tf.Tensor:
        """The labels in standard deviations from their mean: losses are squared errors of these."""
        return (labels - model.label_mean) / model.label_deviation

    def activated(self, model: Any, logits: tf.Tensor) -> tf.Tensor:
        """Values in the label's units, of the logits' shape."""
        return logits * model.label_deviation + model.label_mean


HEADS: dict[str, type[Head]] = {
    "binary": Head,
    "multiclass": Multiclass,
    "regression": Regression,
}
