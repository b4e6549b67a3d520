"""What every settings model of the project is made of."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

Problem = tuple[tuple[str, ...], str]
"""A mistake: the path of the setting, and a sentence that says what to do."""


class Strict(BaseModel):
    """A settings model: frozen, and refusing keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class Settings(Strict):
    """Settings that may contradict each other: a file of them, or a group within it."""

    def problems(self) -> Iterator[Problem]:
        """Yields the contradictions between the fields, each with its path; without the groups'."""
        yield from ()


def problems_of(settings: Settings, at: tuple[str, ...] = ()) -> Iterator[Problem]:
    """Yields every contradiction in settings and in the groups within, each with its path.

    Args:
      settings: which.
      at: their own path.
    """
    yield from (((*at, *path), text) for path, text in settings.problems())
    for name in type(settings).model_fields:
        if isinstance(group := getattr(settings, name), Settings):
            yield from problems_of(group, (*at, name))


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
