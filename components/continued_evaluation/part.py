"""The champion judged on each fresh span: keep, retrain, roll back or investigate."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.settings import Problem
    from pipeline.config import Config


def settings() -> dict[str, Any]:
    """`continued_evaluation`: limits, drift, retraining."""
    from components.continued_evaluation.settings import ContinuedEvaluation

    return {"continued_evaluation": (ContinuedEvaluation, ContinuedEvaluation())}


def problems(config: "Config") -> Iterator["Problem"]:
    """Yields contradictions with the feature table."""
    table = config.features
    compared = [*table.raw_columns(), table.label.column]
    own = config.part("continued_evaluation")
    for path, message in own.mistakes(table.problem, table.slices, compared):
        yield ("continued_evaluation", *path), message
