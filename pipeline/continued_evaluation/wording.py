"""How evaluations are told in words, on the terminal and on the page alike."""

from collections.abc import Sequence
from datetime import date, timedelta

from components.continued_evaluation.decision import Action
from components.continued_evaluation.evidence import OVERALL, Evidence, Metrics, Moved, Value
from components.continued_evaluation.history import Followed, Record
from components.continued_evaluation.settings import Limit

TITLES: dict[Action, str] = {
    "investigate": "Investigate",
    "roll_back": "Roll back",
    "retrain": "Retrain",
    "keep": "Keep",
}
"""The decisions, the weightiest first."""

MEANINGS: dict[Action, str] = {
    "investigate": "Look into the data, the labels or the serving before anything is trained.",
    "roll_back": "The version before the champion is better on this span.",
    "retrain": "The champion needs a successor, trained on newer data.",
    "keep": "The champion stays.",
}

AGAINST: dict[str, str] = {
    "training": "against the champion's training",
    "before": "against the span before",
    "served": "served against trained on (skew)",
}
"""What a column's distribution is compared with."""


def span_name(record: Record) -> str:
    """The span as the data's pattern has it: its number or date; else the evaluation's day.

    Source: TFX counts the days since 1970-01-01 where the pattern has {YYYY}, {MM} and {DD}.
    """
    if not record.has_spans:
        return record.time[:10]
    if "{YYYY}" in record.source:
        return (date(1970, 1, 1) + timedelta(days=record.evidence.span)).isoformat()
    return str(record.evidence.span)


def limits_of(record: Record) -> list[Limit]:
    """The limits that the champion was judged by."""
    return [Limit.model_validate(limit) for limit in record.settings["limits"]]


def limit_in_words(limit: Limit) -> str:
    """'all rows: at least 0.9', 'slices of payment_type: at most 0.1 apart'."""
    said = {
        "at least {:g}": limit.at_least,
        "at most {:g}": limit.at_most,
        "at most {:g} worse than at promotion": limit.below_promotion,
        "at most {:g} apart": limit.gap,
    }
    words = ", ".join(text.format(bound) for text, bound in said.items() if bound is not None)
    where = f"slices of {', '.join(limit.slices)}" if limit.slices else "all rows"
    return f"{where}: {words}"


def judged(evidence: Evidence) -> Metrics:
    """The metrics that were judged: of the logged predictions, if there are any."""
    return evidence.metrics.get("logged") or evidence.metrics["champion"]


def metrics_to_show(records: Sequence[Record]) -> list[str]:
    """The metrics that have a limit, the newest evaluation's first; if none has, one metric."""
    limited = [limit.metric for record in reversed(records) for limit in limits_of(record)]
    if limited:
        return list(dict.fromkeys(limited))
    measured = list(judged(records[-1].evidence)[OVERALL])
    return ["auc"] if "auc" in measured else measured[:1]


def interval(value: Value | None) -> str:
    """'0.9123 (0.9001 to 0.9245)'; '-' for what cannot be computed."""
    if value is None or value.value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} ({value.low:.4f} to {value.high:.4f})"


def worst(moved: Sequence[Moved]) -> Moved | None:
    """The column that is farthest from another distribution, measured by its limit."""
    return max(moved, key=lambda one: one.value / one.limit, default=None)


def outcome(record: Record, followed: Followed | None) -> str:
    """What came of the decision."""
    if followed is not None:
        return followed.what
    return "nothing to do" if record.decision.action == "keep" else "nothing yet"
