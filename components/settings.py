"""What every settings model of the project is made of."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

Problem = tuple[tuple[str, ...], str]
"""A mistake: the path of the setting, and a sentence that says what to do."""


class Strict(BaseModel):
    """A settings model: frozen, and refusing keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Settings(Strict):
    """What a file of settings holds."""

    def problems(self) -> Iterator[Problem]:
        """Yields every contradiction between the fields, each with its path."""
        yield from ()


def _without_removed(value: Any) -> Any:
    """Drops entries set to null: how a variant takes out what its base declares."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


Removable = BeforeValidator(_without_removed)


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
