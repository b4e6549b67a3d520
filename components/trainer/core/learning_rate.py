"""The learning rate as a function of the step."""

import math
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("pipeline")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise, then constant, cosine or exponential decay to a fraction of the first rate."""

    def __init__(self, settings: dict[str, Any], steps: int):
        """Takes `learning_rate` of the settings, and how many steps there will be."""
        self.settings, self.steps = settings, steps

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate at `step` (int scalar), float32 scalar."""
        settings = self.settings
        step = tf.cast(step, tf.float32)
        warmup = settings["warmup_steps"]
        done = tf.clip_by_value((step - warmup) / max(1, self.steps - warmup), 0.0, 1.0)
        last = settings["decay_to"]
        factor = {
            "constant": lambda: tf.ones([]),
            "cosine": lambda: last + (1 - last) * 0.5 * (1 + tf.cos(math.pi * done)),
            "exponential": lambda: tf.pow(tf.cast(last, tf.float32), done),
        }[settings["schedule"]]()
        rise = tf.minimum(1.0, (step + 1) / warmup) if warmup else 1.0
        return settings["initial"] * rise * factor

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"settings": self.settings, "steps": self.steps}
