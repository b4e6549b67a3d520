"""From evidence to a decision, and nothing else: no file, no clock, no network.

Four things can come out, the first that any reason leads to:

- investigate: the data, or how it was served, is not to be trusted. Nobody should train on it.
- roll_back: the champion breaks a limit on this span, and the version before it is better there.
- retrain: the champion breaks a limit, the data has moved away from its training, or it is old.
- keep: none of that.
"""

import math
from collections.abc import Iterator
from typing import Literal

from components.continued_evaluation.evidence import (
    OVERALL,
    Evidence,
    Filed,
    Metrics,
    Moved,
    Value,
)
from components.continued_evaluation.settings import ContinuedEvaluation, Limit
from components.evaluation.slices import columns_of
from components.evaluation.thresholds import METRICS

Action = Literal["keep", "retrain", "roll_back", "investigate"]

_PROMOTION = "below_promotion"
_FIRST: tuple[Action, ...] = ("investigate", "roll_back", "retrain", "keep")


class Reason(Filed):
    """Something that was found, and what it leads to by itself.

    `kind` is one of: anomaly, repeated_rows, one_class, few_rows, prediction_skew, skew,
    drift_from_before, drift_from_training, labels, metric, gap, previous_better, age, cool_down.
    """

    kind: str
    leads_to: Action
    text: str
    metric: str | None = None
    slice: str | None = None
    column: str | None = None
    value: float | None = None
    limit: float | None = None


class Decision(Filed):
    """What to do with the champion, and all reasons; none for a plain `keep`."""

    action: Action
    reasons: list[Reason]


def decide(evidence: Evidence, settings: ContinuedEvaluation) -> Decision:
    """Weighs a champion on a fresh span.

    Args:
      evidence: What was found.
      settings: The limits.
    """
    reasons = list(_data_reasons(evidence, settings))
    if evidence.rows.total < settings.min_rows:
        text = f"{evidence.rows.total} rows are fewer than min_rows ({settings.min_rows})"
        reasons.append(Reason(kind="few_rows", leads_to="keep", text=f"{text}: not judged"))
    else:
        reasons += _moved_reasons(evidence)
        reasons += _metric_reasons(evidence, settings)
    reasons += _age_reasons(evidence, settings)
    action = next(a for a in _FIRST if a == "keep" or any(r.leads_to == a for r in reasons))
    if action == "retrain" and (waiting := _cool_down(evidence, settings)):
        return Decision(action="keep", reasons=[*reasons, waiting])
    return Decision(action=action, reasons=reasons)


def _data_reasons(evidence: Evidence, settings: ContinuedEvaluation) -> Iterator[Reason]:
    for anomaly in evidence.anomalies:
        text = f"{anomaly.column or 'the span'} does not fit the schema: {anomaly.what}"
        yield Reason(kind="anomaly", leads_to="investigate", text=text, column=anomaly.column)
    limit = settings.repeated_rows
    for share, what in (
        (evidence.rows.repeated, "occur more than once in this span"),
        (evidence.rows.seen_before, "were in an earlier span already"),
    ):
        if share > limit:
            text = f"{share:.1%} of the rows {what}; at most {limit:.1%} may"
            yield Reason(
                kind="repeated_rows", leads_to="investigate", text=text, value=share, limit=limit
            )
    if (answers := evidence.answers) and answers.different > settings.prediction_skew.share:
        text = (
            f"{answers.different:.2%} of the logged predictions are not what the same version "
            f"answers now (largest difference {answers.largest:.3g}): training-serving skew"
        )
        yield Reason(
            kind="prediction_skew",
            leads_to="investigate",
            text=text,
            value=answers.different,
            limit=settings.prediction_skew.share,
        )


_MOVED: dict[str, tuple[str, Action, str]] = {
    "before": ("drift_from_before", "investigate", "jumped since the span before"),
    "served": ("skew", "investigate", "is served otherwise than it was trained on"),
    "training": ("drift_from_training", "retrain", "has moved away from the champion's training"),
}


def _moved_reasons(evidence: Evidence) -> Iterator[Reason]:
    for moved in evidence.moved:
        if moved.value > moved.limit:
            kind, leads_to, what = _MOVED[moved.against]
            yield Reason(
                kind=kind,
                leads_to=leads_to,
                text=f"{moved.column} {what}: {_measured(moved)}",
                column=moved.column,
                value=moved.value,
                limit=moved.limit,
            )


def _measured(moved: Moved) -> str:
    measure = moved.measure.replace("_", " ")
    return f"{measure} {moved.value:.3f}, limit {moved.limit:g}"


def _metric_reasons(evidence: Evidence, settings: ContinuedEvaluation) -> Iterator[Reason]:
    judged = evidence.judged
    for name in dict.fromkeys(limit.metric for limit in settings.limits if not limit.slices):
        if judged[OVERALL][name].value is None:
            text = f"{name} cannot be computed: all labels of the span are the same"
            yield Reason(kind="one_class", leads_to="investigate", text=text, metric=name)
    told: set[str] = set()
    for limit in settings.limits:
        for reason in _judge(limit, judged, evidence):
            if reason.text not in told:
                yield reason
            told.add(reason.text)


def _judge(limit: Limit, judged: Metrics, evidence: Evidence) -> Iterator[Reason]:
    """One limit, on all rows or on each slice of some columns."""
    places = [place for place in judged if columns_of(place) == sorted(limit.slices or [])]
    for place in places:
        value = judged[place][limit.metric]
        for bound, what in bounds(limit, place, evidence):
            sure = _with_doubt_of_promotion(value, place, evidence) if what == _PROMOTION else value
            if sure.value is not None and _is_beyond(sure, bound, limit.metric, what):
                yield from _broken(limit, place, value, bound, what, evidence)
    if limit.gap is not None:
        yield from _gap(limit, limit.gap, {place: judged[place][limit.metric] for place in places})


def _with_doubt_of_promotion(value: Value, place: str, evidence: Evidence) -> Value:
    """The interval of the difference to the promotion's value, which was measured on rows too.

    Their number is known, its interval is not: errors go with one over the square root of it.
    """
    then, now = evidence.promoted_rows.get(place), evidence.rows_by_slice.get(place)
    if not then or not now or value.value is None or value.low is None or value.high is None:
        return value
    half = _half(value) * math.sqrt(1 + now / then)
    return Value(value=value.value, low=value.value - half, high=value.value + half)


def bounds(limit: Limit, place: str, evidence: Evidence) -> Iterator[tuple[float, str]]:
    """Yields each bound on a slice's metric, and the setting that it comes from."""
    if limit.at_least is not None:
        yield limit.at_least, "at_least"
    if limit.at_most is not None:
        yield limit.at_most, "at_most"
    promoted = evidence.promoted.get("champion", {}).get(place, {}).get(limit.metric)
    if limit.below_promotion is not None and promoted is not None:
        sign = 1 if METRICS[limit.metric].higher_is_better else -1
        yield promoted - sign * limit.below_promotion, "below_promotion"


def _is_beyond(value: Value, bound: float, metric: str, what: str) -> bool:
    """Whether all of the interval is on the wrong side."""
    assert value.value is not None
    low = value.value if value.low is None else value.low
    high = value.value if value.high is None else value.high
    upper = what == "at_most" or (
        what == "below_promotion" and not METRICS[metric].higher_is_better
    )
    return low > bound if upper else high < bound


_BEYOND = {
    "at_least": "not at least",
    "at_most": "not at most",
    "below_promotion": "worse than at promotion and the margin allow:",
}


def _broken(
    limit: Limit, place: str, value: Value, bound: float, what: str, evidence: Evidence
) -> Iterator[Reason]:
    """The reason itself, and what the other models say about it."""
    rows = "all rows" if place == OVERALL else place
    text = f"{limit.metric} of {rows} is {value}, {_BEYOND[what]} {bound:.4g}"
    found = Reason(
        kind="metric",
        leads_to="retrain",
        text=text,
        metric=limit.metric,
        slice=place,
        value=value.value,
        limit=bound,
    )
    yield found
    if place == OVERALL and (fallen := _heuristic_fell(limit, evidence)):
        yield found.model_copy(update={"kind": "labels", "leads_to": "investigate", "text": fallen})
    elif place == OVERALL and (better := _previous_is_better(limit, bound, what, evidence)):
        yield found.model_copy(
            update={"kind": "previous_better", "leads_to": "roll_back", "text": better}
        )


def _heuristic_fell(limit: Limit, evidence: Evidence) -> str | None:
    """A rule that no training can spoil fell as well, and at once: look at the labels first.

    It is compared with the span before: over years a world may change slowly, and then a
    retraining is right. For the first evaluation with the promotion.
    """
    now = evidence.metrics.get("heuristic", {}).get(OVERALL, {}).get(limit.metric)
    before = evidence.heuristic_before.get(limit.metric)
    if before is None:
        promoted = evidence.promoted.get("heuristic", {}).get(OVERALL, {}).get(limit.metric)
        before = Value(value=promoted)
        now = now and _with_doubt_of_promotion(now, OVERALL, evidence)
    if now is None or now.value is None or before.value is None:
        return None
    half = math.hypot(_half(now), _half(before))
    doubtful = Value(value=now.value, low=now.value - half, high=now.value + half)
    if METRICS[limit.metric].higher_is_better is None or not _is_beyond(
        doubtful, before.value, limit.metric, _PROMOTION
    ):
        return None
    return (
        f"the heuristic, which no training can spoil, fell as well: {limit.metric} was "
        f"{before.value:.4f} and is {now}. Look at the labels first"
    )


def _previous_is_better(limit: Limit, bound: float, what: str, evidence: Evidence) -> str | None:
    """The version before is better on the same rows, and would keep the limit."""
    gain = evidence.metrics.get("over_previous", {}).get(OVERALL, {}).get(limit.metric)
    previous = evidence.metrics.get("previous", {}).get(OVERALL, {}).get(limit.metric)
    higher = METRICS[limit.metric].higher_is_better
    if gain is None or gain.value is None or previous is None or previous.value is None:
        return None
    if higher is None or not _is_beyond(gain, 0.0, limit.metric, "below_promotion"):
        return None
    if _is_beyond(previous, bound, limit.metric, what):
        return None
    return (
        f"version {evidence.previous}, the champion before, has {limit.metric} {previous} "
        "on the same rows, significantly better"
    )


def _gap(limit: Limit, allowed: float, values: dict[str, Value]) -> Iterator[Reason]:
    """The best slice against the worst; their rows are different, so their errors add up."""
    known = {place: v for place, v in values.items() if v.value is not None}
    if len(known) < 2:
        return
    ordered = sorted(known, key=lambda place: known[place].value or 0.0)
    low, high = known[ordered[0]], known[ordered[-1]]
    assert low.value is not None and high.value is not None
    gap = high.value - low.value
    if gap - math.hypot(_half(low), _half(high)) > allowed:
        text = (
            f"{limit.metric} is {gap:.4f} apart between {ordered[0]} ({low}) and "
            f"{ordered[-1]} ({high}); the limit is {allowed:g}"
        )
        yield Reason(
            kind="gap",
            leads_to="retrain",
            text=text,
            metric=limit.metric,
            slice=ordered[0],
            value=gap,
            limit=allowed,
        )


def _half(value: Value) -> float:
    return 0.0 if value.low is None or value.high is None else (value.high - value.low) / 2


def _age_reasons(evidence: Evidence, settings: ContinuedEvaluation) -> Iterator[Reason]:
    for name in ("spans", "days"):
        age, limit = getattr(evidence.age, name), getattr(settings.age, name)
        if age is not None and limit is not None and age > limit:
            text = f"the champion is {age:.0f} {name} old; the limit is {limit}"
            yield Reason(kind="age", leads_to="retrain", text=text, value=age, limit=limit)


def _cool_down(evidence: Evidence, settings: ContinuedEvaluation) -> Reason | None:
    since, pause = evidence.spans_since_retraining, settings.retraining.cool_down
    if since is None or since > pause:
        return None
    text = f"the last retraining was {since} evaluated span(s) ago; cool_down is {pause}"
    return Reason(kind="cool_down", leads_to="keep", text=text, value=since, limit=pause)
