"""Evidence in, decision out: each rule by itself, and which one wins."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.continued_evaluation.decision import decide
from components.continued_evaluation.evidence import Value
from components.continued_evaluation.settings import ContinuedEvaluation
from tests.components.continued_evaluation.evidences import (
    SETTINGS,
    by_slice,
    models,
    moved,
    ordinary,
    value,
)

FINE = {"A": 0.8, "B": 0.75}


def champion(auc: float | None = 0.9, log_loss: float = 0.2, shops: dict[str, float] = FINE) -> Any:
    return models(champion=by_slice(auc, log_loss, shops))


def others(auc: float, **changed: Any) -> dict[str, Any]:
    """The champion's AUC, and other models' metrics beside it."""
    return {"metrics": {**champion(auc=auc), **changed}}


WORSE = {"overall": {"auc": value(-0.1), "log_loss": value(0.1)}}
ANOMALY = {"column": "fare", "kind": "FLOAT_TYPE_BIG_FLOAT", "what": "is too big"}
DOUBTFUL = {"overall": {"auc": value(-0.1, half=0.11), "log_loss": value(0.0)}}
FELL = others(0.5, heuristic=by_slice(0.5, 0.3, FINE), over_previous=WORSE)
SLID = others(0.75, heuristic=by_slice(0.7, 0.3, FINE))
FEW: dict[str, Any] = {"rows": {"total": 99}, **others(0.1), "moved": moved("training", 1.0)}
OLD = {"age": {"spans": 5, "days": 1.0}}
BROKEN = ["metric", "metric"]  # at_least, and below_promotion
ANSWERS = {"rows": 10, "different": 0.5, "largest": 0.3}

RULES: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("nothing", {}, "keep", []),
    ("an anomaly", {"anomalies": [ANOMALY]}, "investigate", ["anomaly"]),
    ("repeated", {"rows": {"total": 1000, "repeated": 0.5}}, "investigate", ["repeated_rows"]),
    ("known", {"rows": {"total": 1000, "seen_before": 1.0}}, "investigate", ["repeated_rows"]),
    ("a few known", {"rows": {"total": 1000, "seen_before": 0.01}}, "keep", []),
    ("answers differ", {"answers": ANSWERS}, "investigate", ["prediction_skew"]),
    ("answers agree", {"answers": {**ANSWERS, "different": 0.0}}, "keep", []),
    ("a jump", {"moved": moved("before", 0.31)}, "investigate", ["drift_from_before"]),
    ("at the limit", {"moved": moved("before", 0.3)}, "keep", []),
    ("skew", {"moved": moved("served", 0.31)}, "investigate", ["skew"]),
    ("drift", {"moved": moved("training", 0.31)}, "retrain", ["drift_from_training"]),
    ("one class", {"metrics": champion(auc=None)}, "investigate", ["one_class"]),
    ("below at_least", {"metrics": champion(auc=0.75)}, "retrain", ["metric", "metric"]),
    ("below promotion", {"metrics": champion(auc=0.83)}, "retrain", ["metric"]),
    ("worse where less is better", {"metrics": champion(log_loss=0.35)}, "retrain", ["metric"]),
    ("better where less is better", {"metrics": champion(log_loss=0.05)}, "keep", []),
    ("in doubt", {"metrics": champion(auc=0.845)}, "keep", []),
    ("a slice", {"metrics": champion(shops={"A": 0.7, "B": 0.55})}, "retrain", ["metric"]),
    ("a gap", {"metrics": champion(shops={"A": 0.95, "B": 0.7})}, "retrain", ["gap"]),
    ("a gap in doubt", {"metrics": champion(shops={"A": 0.9, "B": 0.695})}, "keep", []),
    ("old in spans", {"age": {"spans": 5, "days": 1.0}}, "retrain", ["age"]),
    ("old in days", {"age": {"spans": 1, "days": 366.0}}, "retrain", ["age"]),
    ("as old as allowed", {"age": {"spans": 4, "days": 365.0}}, "keep", []),
    ("just retrained", {**OLD, "spans_since_retraining": 1}, "keep", ["age", "cool_down"]),
    ("retrained before", {**OLD, "spans_since_retraining": 2}, "retrain", ["age"]),
    ("few rows", FEW, "keep", ["few_rows"]),
    ("few odd rows", {**FEW, "anomalies": [ANOMALY]}, "investigate", ["anomaly", "few_rows"]),
    ("as logged", others(0.9, logged=by_slice(0.7, 0.2, FINE)), "retrain", BROKEN),
    (
        *("the version before is better", others(0.75, over_previous=WORSE), "roll_back"),
        ["metric", "previous_better", "metric"],
    ),
    (
        "it breaks the limits too",
        others(0.7, over_previous=WORSE, previous=by_slice(0.75, 0.2, FINE)),
        *("retrain", BROKEN),
    ),
    ("it may be better by chance", others(0.75, over_previous=DOUBTFUL), "retrain", BROKEN),
    ("the rule fell as well", FELL, "investigate", ["metric", "labels", "metric"]),
    ("it slid for years", {**SLID, "heuristic_before": {"auc": value(0.705)}}, "retrain", BROKEN),
    (
        *("it fell at once", {**SLID, "heuristic_before": {"auc": value(0.8)}}, "investigate"),
        ["metric", "labels", "metric"],
    ),
    # 0.838 +- 0.014, and 0.9 less 0.05
    ("a promotion on few rows", {**others(0.838), "promoted_rows": {"overall": 1000}}, "keep", []),
    ("on enough", {**others(0.83), "promoted_rows": {"overall": 1000}}, "retrain", ["metric"]),
    ("on very few", {**others(0.83), "promoted_rows": {"overall": 50}}, "keep", []),
]


@pytest.mark.parametrize(
    ("changes", "action", "kinds"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES]
)
def test_a_rule_by_itself(changes: dict[str, Any], action: str, kinds: list[str]) -> None:
    made = decide(ordinary(**changes), SETTINGS)
    assert made.action == action
    assert [reason.kind for reason in made.reasons] == kinds


def test_distrust_comes_before_everything() -> None:
    found = {**champion(auc=0.75), "over_previous": WORSE}
    everything = ordinary(
        metrics=found,
        moved=[*moved("before", 0.9), *moved("training", 0.9)],
        age={"spans": 9, "days": 900.0},
        spans_since_retraining=1,
    )
    made = decide(everything, SETTINGS)
    assert made.action == "investigate"
    assert {reason.leads_to for reason in made.reasons} == {"investigate", "roll_back", "retrain"}


def test_each_reason_says_what_crossed_which_limit() -> None:
    [drift] = decide(ordinary(moved=moved("training", 0.31)), SETTINGS).reasons
    assert (drift.column, drift.value, drift.limit) == ("fare", 0.31, 0.3)
    [metric] = decide(ordinary(metrics=champion(auc=0.83)), SETTINGS).reasons
    assert (metric.metric, metric.slice, metric.value) == ("auc", "overall", 0.83)
    assert metric.limit == pytest.approx(0.85)
    assert "0.8300 (0.8200 to 0.8400)" in metric.text
    [_, better, _] = decide(ordinary(**others(0.75, over_previous=WORSE)), SETTINGS).reasons
    assert "version 2, the champion before, has auc 0.9000" in better.text
    [_, labels, _] = decide(ordinary(**FELL), SETTINGS).reasons
    assert "the heuristic, which no training can spoil, fell as well" in labels.text


@given(auc=st.floats(0.0, 1.0), half=st.floats(0.0, 0.5), worse=st.floats(0.0, 0.5))
def test_a_wider_interval_or_a_better_value_never_makes_it_worse(
    auc: float, half: float, worse: float
) -> None:
    order = ["keep", "retrain", "roll_back", "investigate"]
    limits = ContinuedEvaluation.model_validate({"limits": [{"metric": "auc", "at_least": 0.7}]})

    def action(middle: float, width: float) -> int:
        own = by_slice(0.9, 0.2, FINE)
        own["overall"]["auc"] = Value(value=middle, low=middle - width, high=middle + width)
        return order.index(decide(ordinary(metrics=models(champion=own)), limits).action)

    assert action(auc, half + worse) <= action(auc, half)
    assert action(auc + worse, half) <= action(auc, half)
