"""How values that a search found travel to the Trainer, and into its settings.

KerasTuner knows numbers and strings only. A value drawn from a range travels as the number that it
is; one of a list of choices, which may itself be a list, as JSON text.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any


def encode_choice(choice: Any) -> str:
    """A listed value as KerasTuner holds it."""
    return json.dumps(choice)


def decode(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings' values from KerasTuner's, by dotted path."""
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in values.items()}


def overlay(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `settings` with `values`, by dotted path, in place of its own."""
    changed = copy.deepcopy(dict(settings))
    for path, value in values.items():
        *parents, name = path.split(".")
        part = changed
        for parent in parents:
            part = part[parent]
        part[name] = value
    return changed


def with_winner(settings: dict[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings to train with.

    Args:
      settings: `model` and `training` as configured.
      found: the Tuner's best hyperparameters (a KerasTuner config); None without a Tuner.
    """
    return overlay(settings, decode(found["values"])) if found else settings
