"""A start from the weights of an earlier version (Transfer Learning, pattern 13).

The export saves the network's variables by their names, as `weights`; here they are found again.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from components.trainer.core.loop import Training, TrainingError, layers_named

_WEIGHTS = "weights"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def weights_by_name(model: keras.Model) -> dict[str, tf.Variable]:
    """The variables of a network, as an export keeps them in its attribute `weights`."""
    return {variable.path: variable.value for variable in model.variables}


def warm_start(training: Training, source: dict[str, Any]) -> None:
    """Gives layers the weights that an earlier version's layers of the same name have.

    Args:
      training: a training that has made no step; its settings say which layers.
      source: `version` (for messages), `variables` (the prefix of its SavedModel's variables), and
        `names` of the network's variables, in their order, for versions that don't have them there.

    Raises:
      TrainingError: the version has no such weights, or they have another shape.
    """
    reader = tf.train.load_checkpoint(source["variables"])
    keys = _keys(reader.get_variable_to_shape_map(), source["names"])
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


def _keys(saved: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Where a version has each of its variables, by the variable's name."""
    keys = {name: f"_{_WEIGHTS}/{number}{_VALUE}" for number, name in enumerate(names)}
    prefix = f"{_WEIGHTS}/"
    for key in saved:
        if key.startswith(prefix) and key.endswith(_VALUE):
            keys[_unescaped(key.removeprefix(prefix).removesuffix(_VALUE))] = key
    return {name: key for name, key in keys.items() if key in saved}


def _unescaped(name: str) -> str:
    parts = name.split("..")  # of a dot; what else begins with one stands for another character
    return ".".join(part.replace(".S", "/") for part in parts)


def _problem(weight: Any, value: Any) -> str | None:
    if value is None:
        return f"{weight.path}: the version has no such weights"
    if tuple(weight.shape) != value.shape:
        return f"{weight.path}: its shape is {value.shape} there and {tuple(weight.shape)} here"
    return None
