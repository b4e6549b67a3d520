"""What the Tuner searches: typed, and checked against the settings that it varies."""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, JsonValue, PositiveInt, ValidationError

from components.settings import Problem, Removable, Settings, Strict, overlay, problems_of

FIXED = {
    "training.seed": "is the same for all trials, so that only the searched settings differ",
    "training.early_stopping.metric": "is what trials are compared by",
    "training.strategy": "is for the Trainer; trials run on one device each",
    **dict.fromkeys(
        (
            "training.workers",
            "training.restarts",
            "training.memory_mib",
            "training.checkpoints.every_seconds",
            "training.checkpoints.every_steps",
            "training.checkpoints.keep",
        ),
        "changes how the training runs, not what it learns",
    ),
}
"""Settings that can't be searched, and why."""


class Values(Strict):
    """The values that one setting may take: a list of them, or a range."""

    choices: Annotated[list[JsonValue], Field(min_length=1)] | None = Field(
        None, description="One of these."
    )
    min: FiniteFloat | None = Field(None, description="Or from here ...")
    max: FiniteFloat | None = Field(None, description="... to here, both included.")
    log: bool = Field(False, description="Draw evenly over the orders of magnitude of the range.")
    integer: bool = Field(False, description="Draw whole numbers only.")

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields."""
        if self.choices is not None and self.model_fields_set == {"choices"}:
            return
        if self.choices is not None or self.min is None or self.max is None:
            yield (), "set either 'choices', or 'min' and 'max'"
        else:
            yield from self._range_problems(self.min, self.max)

    def _range_problems(self, low: float, high: float) -> Iterator[Problem]:
        if low >= high:
            yield ("min",), f"{low:g} must be below 'max', which is {high:g}"
        if self.log and low <= 0:
            yield ("min",), f"{low:g} must be above 0 with 'log: true'"
        if self.integer and not (low.is_integer() and high.is_integer()):
            yield ("integer",), f"'min' and 'max' must be whole numbers, got {low:g} and {high:g}"

    def extremes(self) -> list[Any]:
        """The values that must suit the setting for all to do so: each choice, or both ends."""
        if self.choices is not None:
            return list(self.choices)
        ends = [end for end in (self.min, self.max) if end is not None]
        return [int(end) for end in ends] if self.integer else list(ends)


class Tuning(Strict):
    """A search for better settings, before the Trainer: many trainings, judged on the eval split.

    The winner is the trial with the best early-stopping metric, or the lowest loss without early
    stopping; the Trainer trains with its values, and the registry's manifest records them.
    """

    trials: PositiveInt = Field(description="How many trainings to compare.")
    algorithm: Literal["random", "bayesian"] = Field(
        "random", description="Draw values blindly, or where earlier trials promise most."
    )
    search: Annotated[dict[str, Values], Removable] = Field(
        min_length=1,
        description="What to vary: dotted paths of `model` and `training`, "
        "e.g. `training.learning_rate.initial: {min: 0.0005, max: 0.01, log: true}`.",
    )

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions within the search space."""
        for path, values in self.search.items():
            for inner, message in values.problems():
                yield ("search", path, *inner), message

    def mismatches(self, parts: Mapping[str, BaseModel]) -> Iterator[Problem]:
        """Yields what does not suit the settings to be varied.

        Args:
          parts: the settings models `model` and `training`.
        """
        settings = {name: part.model_dump(mode="json") for name, part in parts.items()}
        known = [path for path in _leaves(settings, "") if path not in FIXED]
        for path, values in self.search.items():
            at = ("search", path)
            if path in FIXED:
                yield at, FIXED[path]
            elif path not in known:
                close = difflib.get_close_matches(path, known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
                yield at, f"unknown setting; {hint}"
            else:
                for value in values.extremes():
                    name = path.partition(".")[0]
                    changed = json.dumps(overlay(settings, {path: value})[name])
                    for message in _mistakes(type(parts[name]), changed):
                        yield at, f"{json.dumps(value)} does not suit it: {message}"


def _mistakes(model: type[BaseModel], text: str) -> Iterator[str]:
    """What is wrong with settings, as JSON, one value of which was changed."""
    try:
        # Strict, since the trial gets the value as it is: "0.1" would stay a string.
        part = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        for mistake in error.errors():
            yield mistake["msg"][0].lower() + mistake["msg"][1:]
        return
    for path, message in problems_of(part) if isinstance(part, Settings) else ():
        yield f"{'.'.join(path)} {message}"


def _leaves(settings: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
