"""What a metric is called, which way is better, and what a candidate must reach.

Measuring happens in `components.evaluation.metrics`, deciding in `components.evaluation.results`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field, PositiveInt

from components.settings import Strict


@dataclass(frozen=True)
class Metric:
    """A metric: the problem it is for, and whether more is better (None: neither way is)."""

    problem: str
    higher_is_better: bool | None


METRICS = {
    "auc": Metric("binary", True),
    "log_loss": Metric("binary", False),
    "accuracy": Metric("binary", True),
    "auc_precision_recall": Metric("binary", True),
    "calibration": Metric("binary", None),
    "categorical_accuracy": Metric("multiclass", True),
    "categorical_log_loss": Metric("multiclass", False),
    "rmse": Metric("regression", False),
    "mae": Metric("regression", False),
    "squared_correlation": Metric("regression", True),
}
"""Metrics by the name used in settings, tables and manifests; `metrics` has their formulas."""

ROWS = "example_count"
"""The metric that counts rows, beside them."""

CANDIDATE, BASELINE, HEURISTIC, LOGGED = "candidate", "baseline", "heuristic", "logged"
"""The models' names in the results; LOGGED: what the candidate answered when it was asked."""

LOW, HIGH, GAIN = "low", "high", "gain"
"""The ends of intervals, as 'auc/low', and beside the models the candidate less the baseline."""

LOGGED_PREDICTION = "__prediction"
"""The column of examples that has it."""


class Threshold(Strict):
    """A limit on one metric. Set at least one of the four limits."""

    metric: str
    at_least: float | None = Field(default=None, description="The metric's own value.")
    at_most: float | None = Field(default=None, description="The metric's own value.")
    over_champion: float | None = Field(
        default=None,
        description="By how much, in the metric's better direction, the candidate must beat the "
        "champion; negative: may fall short.",
    )
    over_heuristic: float | None = Field(
        default=None,
        description="The same against the heuristic, while there is no champion; negative: may "
        "fall short, as by chance with few test rows.",
    )
    slices: list[str] | None = Field(
        default=None,
        description="Holds for every slice of these columns, not over all rows.",
    )


class Judgement(Strict):
    """What the Evaluator needs to know beside the feature table."""

    min_slice_size: PositiveInt
    thresholds: list[Threshold]
    intervals: bool = Field(
        default=False, description="Whether metrics come with confidence intervals (95 %)."
    )
    logged: bool = Field(
        default=False,
        description="Whether the examples have the candidate's logged predictions, to be judged "
        "as well.",
    )


def metrics_of(problem: str) -> list[str]:
    """The names of the metrics for a problem type."""
    return [name for name, metric in METRICS.items() if metric.problem == problem]


def metric_problems(threshold: Threshold, problem: str) -> Iterator[str]:
    """Yields what is wrong with a threshold for a problem type, a sentence each."""
    known = metrics_of(problem)
    if threshold.metric not in known:
        yield f"metric '{threshold.metric}' is not one of {problem}: {', '.join(known)}"
    least, most = threshold.at_least, threshold.at_most
    margins = (threshold.over_champion, threshold.over_heuristic)
    if all(limit is None for limit in (least, most, *margins)):
        yield "set at_least, at_most, over_champion or over_heuristic"
    if least is not None and most is not None and least > most:
        yield f"at_least {least} is above at_most {most}"
    metric = METRICS.get(threshold.metric)
    if metric and metric.higher_is_better is None and margins != (None, None):
        yield f"{threshold.metric} has no better direction; use at_least and at_most"
    if threshold.slices is not None and not threshold.slices:
        yield "slices is empty: name columns, or leave it out for all rows"
