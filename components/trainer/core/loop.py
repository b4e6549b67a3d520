"""The training loop: one for every strategy, each batch a pure function of the seed and the step.

All that a training is made of lies in `Training.state` (weights, optimizer, counters, best weights)
and in the step number, so that a training can be saved and gone on with exactly.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from components.trainer.core import model as network
from components.trainer.core.data import Rows
from components.trainer.core.heads import HEADS
from components.trainer.core.learning_rate import Schedule

_EVAL_BATCH = 8192


class TrainingError(Exception):
    """The training cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class Progress:
    """Where a training is."""

    step: int
    steps: int
    loss: float
    """Mean over the steps since the last report."""
    examples_per_second: float
    seconds_left: float
    evaluation: dict[str, float]
    """Metrics on the eval split, `loss` among them."""

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"step {self.step:,} of {self.steps:,}, loss {self.loss:.4f}, "
            f"eval loss {self.evaluation['loss']:.4f}, "
            f"{self.examples_per_second:,.0f} examples/s, {self.seconds_left:.0f} s left"
        )


class Training:
    """A training of one model on rows in memory."""

    def __init__(
        self, train: Rows, held_out: Rows, inputs: dict[str, Any], settings: dict[str, Any]
    ):
        """Builds the model and all variables.

        Args:
          train: the train split.
          held_out: the eval split, for early stopping.
          inputs: the feature spec (`components.features.model_inputs`).
          settings: `model` and `training` as in `configs/*.yaml`.
        """
        options = settings["training"]
        self.train, self.held_out, self.options = train, held_out, options
        self.batch = options["global_batch_size"]
        self.rows = int(train.labels.shape[0])
        self.steps_per_epoch = -(-self.rows // self.batch)
        self.steps = options["steps"] or options["epochs"] * self.steps_per_epoch
        keras.utils.set_random_seed(options["seed"])
        self.head = HEADS[inputs["problem"]]()
        self.model = network.build(inputs, settings["model"], options["seed"])
        self.head.prepare(self.model, train.labels)
        self.optimizer = keras.optimizers.Adam(Schedule(options["learning_rate"], self.steps))
        self.optimizer.build(self.model.trainable_variables)
        self.best = tf.Variable(float("inf"), trainable=False, name="best")
        self.evaluations_since_best = tf.Variable(0, trainable=False, name="since_best")
        self.best_weights = [tf.Variable(v, trainable=False) for v in self.model.variables]
        self.metrics = self.head.metrics()

    @property
    def state(self) -> list[Any]:
        """Every variable that a continued training needs, in a fixed order."""
        counters = [self.best, self.evaluations_since_best]
        return [*self.model.variables, *self.optimizer.variables, *counters, *self.best_weights]

    def run(self, report: Callable[[Progress], None]) -> int:
        """Trains to the end, or until early stopping; leaves the best weights in the model.

        Returns:
          The number of steps made.

        Raises:
          TrainingError: a loss that is not a number.
        """
        step, started = 0, time.monotonic()
        while step < self.steps:
            stop = self._next_stop(step)
            loss = self._run_steps(step, stop)
            step = stop
            if step % self.options["evaluate_every_steps"] and step < self.steps:
                continue
            evaluation = self.evaluate(self.held_out)
            elapsed = time.monotonic() - started
            rate = step * self.batch / elapsed
            left = (self.steps - step) * elapsed / step
            report(Progress(step, self.steps, loss, rate, left, evaluation))
            if self._should_stop(evaluation):
                break
        if self.options["early_stopping"]:
            for variable, value in zip(self.model.variables, self.best_weights, strict=True):
                variable.assign(value)
        return step

    def evaluate(self, rows: Rows) -> dict[str, float]:
        """The mean loss and the head's metrics over the rows."""
        for metric in self.metrics.values():
            metric.reset_state()
        count = int(rows.labels.shape[0])
        loss = 0.0
        for start in range(0, count, _EVAL_BATCH):
            part = rows.slice(start, start + _EVAL_BATCH)
            loss += float(self._evaluate_batch(part)) * int(part.labels.shape[0])
        return {"loss": loss / count} | {k: float(m.result()) for k, m in self.metrics.items()}

    def _next_stop(self, step: int) -> int:
        """Where the next stretch ends: an evaluation, an epoch (a new order of rows), the end."""
        every = self.options["evaluate_every_steps"]
        epoch_end = (step // self.steps_per_epoch + 1) * self.steps_per_epoch
        return min(self.steps, (step // every + 1) * every, epoch_end)

    def _run_steps(self, start: int, stop: int) -> float:
        epoch, first = divmod(start, self.steps_per_epoch)
        order = self._order(tf.constant([self.options["seed"], epoch], tf.int32))
        last = first + stop - start
        total, bad_step = self._stretch(self.train, order, tf.constant(first), tf.constant(last))
        if int(bad_step) >= 0:
            raise TrainingError(
                f"The loss is not a number at step {start + int(bad_step) - first + 1} of "
                f"{self.steps}. Lower training.learning_rate.initial, or look for extreme values "
                "in the numeric features."
            )
        return float(total) / (stop - start)

    @tf.function(autograph=False)
    def _order(self, seed: tf.Tensor) -> tf.Tensor:
        return tf.random.experimental.stateless_shuffle(tf.range(self.rows), seed=seed)

    @tf.function(autograph=False)
    def _stretch(
        self, rows: Rows, order: tf.Tensor, first: tf.Tensor, last: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Steps `first` to before `last` of an epoch; their summed loss, and the first bad one."""

        def step(number: tf.Tensor, total: tf.Tensor, bad_step: tf.Tensor) -> tuple[Any, ...]:
            batch = order[number * self.batch : (number + 1) * self.batch]
            loss = self._step(rows.take(batch))
            is_bad = (bad_step < 0) & ~tf.math.is_finite(loss)
            return number + 1, total + loss, tf.where(is_bad, number, bad_step)

        start = first, tf.constant(0.0), tf.constant(-1)
        _, total, bad_step = tf.while_loop(
            lambda number, *_: number < last, step, start, parallel_iterations=1
        )
        return total, bad_step

    def _step(self, rows: Rows) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = self.model({"numbers": rows.numbers, "ids": rows.ids}, training=True)
            loss = self.head.loss_of(self.model, rows.labels, logits)
            loss = tf.add_n([loss, *self.model.losses])
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    @tf.function(autograph=False, reduce_retracing=True)
    def _evaluate_batch(self, rows: Rows) -> tf.Tensor:
        logits = self.model({"numbers": rows.numbers, "ids": rows.ids}, training=False)
        predictions = self.head.predict(self.model, logits)
        for metric in self.metrics.values():
            metric.update_state(rows.labels[:, None], predictions)
        return self.head.loss_of(self.model, rows.labels, logits)

    def _should_stop(self, evaluation: dict[str, float]) -> bool:
        stopping = self.options["early_stopping"]
        if not stopping:
            return False
        sign = -1 if stopping["metric"] in ("auc", "accuracy") else 1
        value = sign * evaluation[stopping["metric"]]
        if value < float(self.best) - stopping["min_delta"]:
            self.best.assign(value)
            self.evaluations_since_best.assign(0)
            for kept, variable in zip(self.best_weights, self.model.variables, strict=True):
                kept.assign(variable)
        else:
            self.evaluations_since_best.assign_add(1)
        return int(self.evaluations_since_best) >= stopping["patience"]
