"""The training loop: one for every strategy, each batch a pure function of the seed and the step.

All that a training is made of lies in `Training.variables` (weights, optimizer, best weights) and
in `Training.position`, so that a training can be saved and gone on with exactly.
"""

import fnmatch
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.trainer.core import model as network
from components.trainer.core.batches import Batch, Feed
from components.trainer.core.data import Source, by_kind, described
from components.trainer.core.heads import head_of
from components.trainer.core.strategy import precision, sum_over_replicas, sum_over_workers

_EVAL_BATCH = 8192
_SECONDS_A_STRETCH = 1.0
"""Between stretches of steps a training can be saved or interrupted."""


class TrainingError(Exception):
    """The training cannot go on; the message says at which step and why."""


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise, then constant, cosine or exponential decay to a fraction of the first rate."""

    def __init__(self, settings: dict[str, Any], steps: int):
        """Takes `learning_rate` of the settings, and how many steps there will be."""
        self.settings, self.steps = settings, steps

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate at `step` (int scalar), float32 scalar."""
        settings, step = self.settings, tf.cast(step, tf.float32)
        warmup, last = settings["warmup_steps"], settings["decay_to"]
        done = tf.clip_by_value((step - warmup) / max(1, self.steps - warmup), 0.0, 1.0)
        factor = {
            "constant": lambda: tf.ones([]),
            "cosine": lambda: last + (1 - last) * 0.5 * (1 + tf.cos(math.pi * done)),
            "exponential": lambda: tf.pow(tf.cast(last, tf.float32), done),
        }[settings["schedule"]]()
        rise = tf.minimum(1.0, (step + 1) / warmup) if warmup else 1.0
        return settings["initial"] * rise * factor


@dataclass
class Position:
    """Where a training is, beside its variables."""

    step: int = 0
    loss_sum: float = 0.0
    """Of the steps since the last report, in float32."""
    unreported: int = 0
    """How many they are."""
    best: float = float("inf")
    evaluations_since_best: int = 0
    finished: bool = False
    seconds: float = 0.0
    """Time spent in steps and evaluations."""
    evaluations: list[dict[str, float]] = field(default_factory=list)


class Training:
    """A training of one model under one strategy."""

    def __init__(
        self,
        train: Source,
        held_out: Source,
        inputs: dict[str, Any],
        settings: dict[str, Any],
        strategy: tf.distribute.Strategy | None = None,
    ):
        """Builds the model and all variables.

        Args:
          train: the train split.
          held_out: the eval split, for early stopping.
          inputs: the feature spec (`components.features.model_inputs`).
          settings: `model` and `training` as in `configs/*.yaml`.
          strategy: without one, the device that TensorFlow takes by itself.

        Raises:
          TrainingError: the batch cannot be divided, or a layer to freeze is not there.
        """
        options = settings["training"]
        self.features = inputs["features"]
        self.options, self.strategy = options, strategy or tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.feed = Feed(train, options["global_batch_size"], options["seed"])
        if self.feed.batch % self.replicas:
            raise TrainingError(
                f"training.global_batch_size is {self.feed.batch}, which {self.replicas} replicas "
                f"cannot share evenly. Set a multiple of {self.replicas}."
            )
        per_replica = min(_EVAL_BATCH, -(-sum(held_out.counts) // self.replicas))
        self.held_out = Feed(held_out, per_replica * self.replicas, None)
        self.steps = options["steps"] or options["epochs"] * self.feed.steps
        self.position = Position()
        self._stretch_steps = 1
        self._evaluation_batches: Any = None
        with self.strategy.scope():
            self._build(train, inputs, settings)

    def _build(self, train: Source, inputs: dict[str, Any], settings: dict[str, Any]) -> None:
        options = self.options
        self.model = build_model(inputs, settings, train.label)
        self.head = head_of(inputs["problem"], self.model.output_shape[-1])
        self._weigh(options["rebalance"], train.label)
        start = options["warm_start"]
        if start and start["freeze"]:
            for layer in layers_named(self.model, start["layers"]):
                layer.trainable = False
        rate = options["learning_rate"]
        if rate["scale_by_replicas"]:
            rate = rate | {"initial": rate["initial"] * self.replicas}
        self.optimizer = Adam(Schedule(rate, self.steps), rate_shares(self.model, self.features))
        if options["precision"] == "float16":
            self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer)
        self.optimizer.build(self.model.trainable_variables)
        watched = self.model.variables if options["early_stopping"] else []
        self.best_weights = [tf.Variable(v.value, trainable=False) for v in watched]
        self.metrics = self.head.metrics()

    def _weigh(self, rebalance: dict[str, Any] | None, label: dict[str, Any]) -> None:
        """Sets loss weights by class, and what makes up for them."""
        self.class_weights, self.offsets = None, 0.0
        if rebalance is None:
            return
        classes = max(2, self.head.outputs)
        counts = [*label["counts"], *[0] * classes][:classes]
        weights = rebalance["weights"] or [1.0] * len(counts)
        if weights == "balanced":
            weights = [sum(counts) / (len(counts) * max(1, count)) for count in counts]
        keep = rebalance["keep"] or [1.0] * len(weights)
        self.class_weights = tf.constant(weights, tf.float32)
        ratios = [weight * share for weight, share in zip(weights, keep, strict=True)]
        self.offsets = tf.constant(self.head.offsets(ratios))

    @property
    def variables(self) -> dict[str, list[tf.Variable]]:
        """Every variable that a continued training needs, in a fixed order."""
        return {
            "model": [variable.value for variable in self.model.variables],
            "optimizer": [variable.value for variable in self.optimizer.variables],
            "best": self.best_weights,
        }

    def run(
        self,
        report: Callable[[str], None],
        pause: Callable[["Training"], None] = lambda _: None,
    ) -> None:
        """Trains on from `position` to the end, or until early stopping.

        The model is left with the best weights, or with the last ones without early stopping.

        Args:
          report: hears of each evaluation, in a line for a person.
          pause: called between stretches of steps, about once a second or more often; it may save
            the training, and end it by raising.

        Raises:
          TrainingError: a loss that is not a number.
        """
        here = self.position
        batches = iter(self.feed.distributed(self.strategy, here.step))
        first_step, started, before = here.step, time.monotonic(), here.seconds
        while not here.finished:
            self._advance(batches, self._next_stop() - here.step)
            here.seconds = before + time.monotonic() - started
            if here.step % self.options["evaluate_every_steps"] == 0 or here.step == self.steps:
                rate = (here.step - first_step) / (time.monotonic() - started)
                self._evaluate_and_report(rate, report)
            pause(self)

    def _advance(self, batches: Any, count: int) -> None:
        """Makes `count` steps."""
        here, started = self.position, time.monotonic()
        total, bad_step = self._stretch(
            batches,
            tf.constant(here.step, tf.int64),
            tf.constant(here.step + count, tf.int64),
            tf.constant(here.loss_sum),
        )
        if int(bad_step) >= 0:
            raise TrainingError(
                f"The loss is not a number at step {int(bad_step) + 1} of {self.steps}. "
                "Lower training.learning_rate.initial, or look for extreme values in the numeric "
                "features."
            )
        here.step += count
        here.loss_sum, here.unreported = float(total), here.unreported + count
        taken = time.monotonic() - started
        [seconds, workers] = sum_over_workers(self.strategy, [taken, 1.0])
        # The same in all workers, so that they pause together. The first stretch holds the tracing.
        wanted = _SECONDS_A_STRETCH * workers * count / seconds
        self._stretch_steps = max(1, min(int(wanted), 2 * self._stretch_steps))

    def _next_stop(self) -> int:
        """Where the next stretch ends."""
        step, options = self.position.step, self.options
        every = options["evaluate_every_steps"], options["checkpoints"]["every_steps"]
        stops = [(step // steps + 1) * steps for steps in every if steps]
        return min(self.steps, *stops, step + self._stretch_steps)

    @tf.function(autograph=False, reduce_retracing=True)
    def _stretch(
        self, batches: Any, first: tf.Tensor, last: tf.Tensor, total: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Steps `first` to before `last`; `total` plus their losses, and the first bad step."""

        def step(number: tf.Tensor, total: tf.Tensor, bad_step: tf.Tensor) -> tuple[Any, ...]:
            count = tf.cast(self.feed.real_rows(number), tf.float32)
            losses = self.strategy.run(self.train_step, args=(next(batches), count))
            loss = self.strategy.experimental_local_results(losses)[0]
            is_bad = (bad_step < 0) & ~tf.math.is_finite(loss)
            return number + 1, total + loss, tf.where(is_bad, number, bad_step)

        start = first, total, tf.constant(-1, tf.int64)
        _, total, bad_step = tf.while_loop(
            lambda number, *_: number < last, step, start, parallel_iterations=1
        )
        return total, bad_step

    def train_step(self, batch: Batch, count: tf.Tensor) -> tf.Tensor:
        """One replica's part of a step: forward, backward, update.

        Args:
          batch: this replica's rows.
          count: float32 scalar, the real rows of the whole global batch.

        Returns:
          The loss of the whole global batch, the same in each replica.
        """
        with tf.GradientTape() as tape:
            logits = self.model(by_kind(batch.numbers, batch.ids, self.features), training=True)
            losses = self.head.losses(self.model, batch.labels, logits + self.offsets)
            if self.class_weights is not None:
                losses *= tf.gather(self.class_weights, tf.cast(batch.labels, tf.int32))
            penalties = [tf.cast(loss, tf.float32) / self.replicas for loss in self.model.losses]
            loss = tf.add_n([tf.reduce_sum(losses * batch.weights) / count, *penalties])
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        # Before the optimizer sees them: where one replica's are not finite, all skip the step.
        *gradients, loss = sum_over_replicas([*tape.gradient(scaled, variables), loss])
        self.optimizer.apply(gradients, variables)
        return loss

    def evaluate(self) -> dict[str, float]:
        """The mean loss and the head's metrics over the eval split."""
        if self._evaluation_batches is None:
            self._evaluation_batches = iter(self.held_out.distributed(self.strategy, 0))
        for metric in self.metrics.values():
            metric.reset_state()
        loss = float(self._evaluate(self._evaluation_batches)) / self.held_out.rows
        return {"loss": loss} | {k: float(m.result()) for k, m in self.metrics.items()}

    @tf.function(autograph=False, reduce_retracing=True)
    def _evaluate(self, batches: Any) -> tf.Tensor:
        def step(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            losses = self.strategy.run(self.evaluate_step, args=(next(batches),))
            return number + 1, total + self.strategy.reduce("SUM", losses, axis=None)

        start = tf.constant(0), tf.constant(0.0)
        last = self.held_out.steps
        return tf.while_loop(lambda n, _: n < last, step, start, parallel_iterations=1)[1]

    def evaluate_step(self, batch: Batch) -> tf.Tensor:
        """One replica's part of an evaluation: updates the metrics, returns the sum of losses."""
        logits = self.model(by_kind(batch.numbers, batch.ids, self.features), training=False)
        predictions = self.head.predict(self.model, logits)
        for metric in self.metrics.values():
            metric.update_state(*self.head.measured(batch.labels, predictions, batch.weights))
        losses = self.head.losses(self.model, batch.labels, logits)
        return tf.reduce_sum(losses * batch.weights)

    def _evaluate_and_report(self, steps_a_second: float, report: Any) -> None:
        here = self.position
        loss = here.loss_sum / here.unreported
        here.loss_sum, here.unreported = 0.0, 0
        evaluation = self.evaluate()
        rate = steps_a_second * self.feed.batch
        told = {"step": here.step, "train_loss": loss, "examples_per_second": rate}
        here.evaluations.append(told | evaluation)
        here.finished = self._should_stop(evaluation) or here.step == self.steps
        if here.finished:
            for variable, best in zip(self.model.variables, self.best_weights, strict=False):
                variable.value.assign(best)
        left = (self.steps - here.step) / steps_a_second
        report(
            f"step {here.step:,} of {self.steps:,}, loss {loss:.4f}, "
            f"eval loss {evaluation['loss']:.4f}, {rate:,.0f} examples/s, {left:.0f} s left"
        )

    def _should_stop(self, evaluation: dict[str, float]) -> bool:
        stopping, here = self.options["early_stopping"], self.position
        if not stopping:
            return False
        sign = -1 if stopping["metric"] in ("auc", "accuracy") else 1
        value = sign * evaluation[stopping["metric"]]
        if value < here.best - stopping["min_delta"]:
            here.best, here.evaluations_since_best = value, 0
            self._keep_best()
        else:
            here.evaluations_since_best += 1
        return here.evaluations_since_best >= int(stopping["patience"])

    @tf.function(autograph=False)
    def _keep_best(self) -> None:
        for kept, variable in zip(self.best_weights, self.model.variables, strict=True):
            kept.assign(variable.value)


class Adam(keras.optimizers.Adam):
    """Adam of summed gradients, with a learning rate of its own for some variables."""

    def __init__(self, rate: Any, shares: dict[str, float]):
        """Takes the rate, and by a variable's path which share of it is the variable's."""
        super().__init__(rate)
        self._shares = shares

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """See Keras."""
        own = self._trainable_variables[self._get_variable_index(variable)]
        share = self._shares.get(own.path, 1.0)
        super().update_step(gradient, variable, learning_rate * share)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars  # Keras would sum them once more, each sparse one by itself


def rate_shares(model: keras.Model, features: list[dict[str, Any]]) -> dict[str, float]:
    """The share of the learning rate of the variables of pretrained layers."""
    shares = {
        f"pretrained_{f['name']}": f["pretrained"]["learning_rate"]
        for f in features
        if "pretrained" in f
    }
    return {
        weight.path: shares[layer.name]
        for layer in model.layers
        if layer.name in shares
        for weight in layer.trainable_weights
    }


def build_model(
    inputs: dict[str, Any], settings: dict[str, Any], label: dict[str, Any] | None = None
) -> keras.Model:
    """The untrained model: layers, and what its head must know of the training labels.

    Args:
      inputs: the feature spec (`components.features.model_inputs`).
      settings: `model` and `training` as in `configs/*.yaml`.
      label: see `data.described`; None where all weights come from a checkpoint.
    """
    options = settings["training"]
    keras.utils.set_random_seed(options["seed"])
    with precision(options["precision"]):
        model = network.build(inputs, settings["model"], options["seed"])
    head = head_of(inputs["problem"], model.output_shape[-1])
    head.prepare(model, label or described(np.zeros(1)))
    if label and (options["rebalance"] or {}).get("initial_bias"):
        bias = model.get_layer("deep").bias
        bias.assign(np.broadcast_to(head.first_bias(label), bias.shape))
    return model


def layers_named(model: keras.Model, patterns: list[str]) -> list[keras.layers.Layer]:
    """The layers with weights whose names match one of the patterns (`hidden_*`).

    Raises:
      TrainingError: a pattern matches none.
    """
    layers = [layer for layer in model.layers if layer.weights]
    for pattern in patterns:
        if not fnmatch.filter([layer.name for layer in layers], pattern):
            raise TrainingError(
                f"training.warm_start.layers has '{pattern}', but no layer with weights is called "
                f"so. There are: {', '.join(layer.name for layer in layers)}."
            )
    return [layer for layer in layers if any(fnmatch.fnmatch(layer.name, p) for p in patterns)]
