"""Hyperparameter tuning: a search for better settings before the Trainer, with KerasTuner."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.settings import Problem
    from pipeline.config import Config


def settings() -> dict[str, Any]:
    """`tuning`: what to search; off if null."""
    from pydantic import Field

    from components.tuning.settings import Tuning

    text = "Search for better settings before the Trainer; off if null."
    return {"tuning": (Tuning | None, Field(None, description=text))}


def problems(config: "Config") -> Iterator["Problem"]:
    """Yields what is wrong in the search space, and what does not suit the settings varied."""
    tuning = config.part("tuning")
    if tuning is not None:
        varied = {"model": config.model, "training": config.training}
        for path, message in (*tuning.problems(), *tuning.mismatches(varied)):
            yield ("tuning", *path), message


def tuner(config: "Config", arguments: Callable[[str], dict[str, Any]]) -> Any:
    """TFX's Tuner, if the setting `tuning` is there."""
    tuning = config.part("tuning")
    if tuning is None:
        return None
    from tfx.components.tuner.component import Tuner

    module = "components.tuning.tuner"
    made = arguments(module)
    made["custom_config"]["tuning"] = tuning.model_dump(mode="json")
    return Tuner(tuner_fn=f"{module}.tuner_fn", **made)
