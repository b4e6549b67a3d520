"""What is checked, and what came of it."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from components.trainer.core.batches import Batch

RULES = {
    "shapes": "every shape is known before a step runs",
    "operations": "every operation can be compiled for a TPU",
    "same result": "compiled, a step does the same as it does plainly",
    "compiled once": "a step is compiled once, whatever the data",
}
"""What a TPU demands of a step, by short name."""


class Finding(NamedTuple):
    """Something that breaks a rule."""

    rule: str
    """A key of `RULES`."""
    where: str
    """The layer, or the line of code."""
    problem: str
    """What it is, and what to do."""


class Step(NamedTuple):
    """A function that runs on the TPU once for each batch, and what it changes."""

    name: str
    run: Callable[[Batch], tf.Tensor]
    variables: list[tf.Variable]
    batches: list[Batch]
    """All of one shape."""
    model: keras.Model
