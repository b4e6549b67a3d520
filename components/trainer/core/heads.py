"""What each problem type means: its loss, its metrics, and what the logits stand for."""

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
        return self.loss(labels[:, None], logits)

    def predict(self, model: keras.Model, logits: tf.Tensor) -> tf.Tensor:
        """Predictions, float32 [n, outputs]: probabilities, or values in the label's units."""
        return tf.sigmoid(logits)


class Multiclass(Head):
    """One of several classes; labels are int64 class ids."""

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    def metrics(self) -> dict[str, keras.metrics.Metric]:
        """Fresh metrics of predictions, by the name that settings use."""
        return {"accuracy": keras.metrics.SparseCategoricalAccuracy()}

    def predict(self, model: keras.Model, logits: tf.Tensor) -> tf.Tensor:
        """Probabilities, float32 [n, classes]."""
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

    def losses(self, model: Any, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """The squared error of each row in standard deviations of the label, float32 [n]."""
        standardised = (labels - model.label_mean) / model.label_deviation
        return self.loss(standardised[:, None], logits)

    def predict(self, model: Any, logits: tf.Tensor) -> tf.Tensor:
        """Values in the label's units, float32 [n, 1]."""
        return logits * model.label_deviation + model.label_mean


HEADS: dict[str, type[Head]] = {
    "binary": Head,
    "multiclass": Multiclass,
    "regression": Regression,
}
