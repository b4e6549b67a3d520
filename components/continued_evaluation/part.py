"""The champion judged on each fresh span: keep, retrain, roll back or investigate."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.command_line import AsJson, ConfigName, Overrides, command

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


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "Continued evaluation")(continued_evaluation)
    command(app, "Continued evaluation")(evaluations)


def continued_evaluation(
    config: ConfigName = "automated",
    set_: Overrides = None,
    span: Annotated[
        int | None, typer.Option(metavar="N", help="Which span; the newest if not given.")
    ] = None,
) -> int:
    """Judge the champion on a fresh span, decide, and retrain if it is due."""
    from components.continued_evaluation import run

    return run.main(config, set_ or [], span)


def evaluations(
    config: ConfigName = "automated", set_: Overrides = None, json_: AsJson = False
) -> int:
    """List all evaluations of a model, and draw them on a page."""
    from components.continued_evaluation import run

    return run.list_evaluations(config, set_ or [], json_)
