"""What a metric is called, which way is better, and what a candidate must reach.

Measuring happens in `components.evaluation.metrics`, deciding in `components.evaluation.results`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field, PositiveFloat, PositiveInt

from components.settings import Strict


@dataclass(frozen=True)
class Metric:
    """A metric of at least 0: which problems it is for, whether more is better (None: neither)."""

    problems: tuple[str, ...]
    higher_is_better: bool | None
    most: float = math.inf
    """What it can be at most."""


_TWO = ("binary", "multilabel")
METRICS = {
    "auc": Metric(_TWO, True, 1.0),
    "log_loss": Metric(_TWO, False),
    "accuracy": Metric(_TWO, True, 1.0),
    "auc_precision_recall": Metric(_TWO, True, 1.0),
    "calibration": Metric(_TWO, None),
    "false_positive_rate": Metric(_TWO, False, 1.0),
    "false_negative_rate": Metric(_TWO, False, 1.0),
    "categorical_accuracy": Metric(("multiclass",), True, 1.0),
    "categorical_log_loss": Metric(("multiclass",), False),
    "rmse": Metric(("regression",), False),
    "mae": Metric(("regression",), False),
    "crps": Metric(("regression",), False),
    "squared_correlation": Metric(("regression",), True, 1.0),
}
"""Metrics by the name used in settings, tables and manifests; `metrics` has their formulas."""

ROWS = "example_count"
"""The metric that counts rows, beside them."""

CURVES, BINS = "curves", 1000
"""The metric that has what charts are drawn from, and into how many bins it puts probabilities."""

CANDIDATE, BASELINE, HEURISTIC, LOGGED = "candidate", "baseline", "heuristic", "logged"
"""The models' names in the results; LOGGED: what the candidate answered when it was asked."""

LOW, HIGH, GAIN = "low", "high", "gain"
"""The ends of intervals, as 'auc/low', and beside the models the candidate less the baseline."""

LOGGED_PREDICTION = "__prediction"
"""The column of examples that has it."""


class Bound(Strict):
    """What a metric must reach, over all rows or in each slice of some columns."""

    metric: str
    at_least: float | None = Field(None, description="The metric's own value.")
    at_most: float | None = Field(None, description="The metric's own value.")
    slices: list[str] | None = Field(
        None, description="Holds for every slice of these columns, not over all rows."
    )

    def mistakes(self, problem: str) -> Iterator[str]:
        """Yields what is wrong with it for a problem type, a sentence each."""
        known = metrics_of(problem)
        if self.metric not in known:
            yield f"metric '{self.metric}' is not one of {problem}: {', '.join(known)}"
            return
        limits = [name for name in type(self).model_fields if name not in ("metric", "slices")]
        given = {name for name in limits if getattr(self, name) is not None}
        if not given:
            yield f"set {', '.join(limits[:-1])} or {limits[-1]}"
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            yield f"at_least {self.at_least} is above at_most {self.at_most}"
        margins = {name for name in given if name.startswith(("over_", "below_"))}
        if margins and METRICS[self.metric].higher_is_better is None:
            yield f"{self.metric} has no better direction; use at_least and at_most"
        if self.slices is not None and not self.slices:
            yield "slices is empty: name columns, or leave it out for all rows"


class Threshold(Bound):
    """A limit on one metric of a candidate. Set at least one of the five limits."""

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
    gap: PositiveFloat | None = Field(
        default=None,
        description="How far apart the metric of two of the slices may be (Fairness Lens).",
    )

    def mistakes(self, problem: str) -> Iterator[str]:
        """Yields what is wrong with it for a problem type, a sentence each."""
        yield from super().mistakes(problem)
        if self.gap is not None and not self.slices:
            yield "gap is between slices: name their columns in slices"


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
    what_if: list[str] = Field(
        default_factory=list,
        description="Columns whose values are exchanged: does that change "
        "predictions (Fairness Lens)?",
    )
    importances: bool = Field(
        default=False, description="Whether columns are shuffled, to see what each is worth."
    )


def metrics_of(problem: str) -> list[str]:
    """The names of the metrics for a problem type."""
    return [name for name, metric in METRICS.items() if problem in metric.problems]
