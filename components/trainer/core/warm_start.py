"""A start from the weights of an earlier version (Transfer Learning, pattern 13)."""

from typing import Any

import tensorflow as tf

from components.trainer.core.loop import Training, TrainingError, layers_named

_KEY = "_weights/{}/.ATTRIBUTES/VARIABLE_VALUE"
"""Where `components.trainer.export` puts the network's variables, in their order."""


def warm_start(training: Training, source: dict[str, Any]) -> None:
    """Gives layers the weights that an earlier version's layers of the same name have.

    Args:
      training: a training that has made no step; its settings say which layers.
      source: `version` (for messages), `variables` (the prefix of its SavedModel's variables), and
        `names` of the network's variables, in their order.

    Raises:
      TrainingError: the version has no such weights, or they have another shape.
    """
    reader = tf.train.load_checkpoint(source["variables"])
    keys = {name: _KEY.format(number) for number, name in enumerate(source["names"])}
    wanted = layers_named(training.model, training.options["warm_start"]["layers"])
    weights = [weight for layer in wanted for weight in layer.weights]
    values = {w.path: reader.get_tensor(keys[w.path]) for w in weights if w.path in keys}
    problems = [_problem(weight, values.get(weight.path)) for weight in weights]
    if found := [problem for problem in problems if problem]:
        raise TrainingError(
            f"The model cannot start from version {source['version']}:\n  "
            + "\n  ".join(found)
            + "\nSet training.warm_start.layers to the layers that both have alike, or make the "
            "model and the features those of that version."
        )
    for weight in weights:
        weight.value.assign(values[weight.path])


def _problem(weight: Any, value: Any) -> str | None:
    if value is None:
        return f"{weight.path}: the version has no such weights"
    if tuple(weight.shape) != value.shape:
        return f"{weight.path}: its shape is {value.shape} there and {tuple(weight.shape)} here"
    return None
