"""A year of a model's evaluations, filed for real: what the listing and the page are tested on."""

import random
from pathlib import Path
from typing import Any

import numpy as np

from components.continued_evaluation import evidence as ev
from components.continued_evaluation import history
from components.continued_evaluation.decision import decide
from components.continued_evaluation.settings import ContinuedEvaluation
from components.evaluation.slices import slice_name

ODD_SLICE = slice_name([("payment_type", '<b>Cash</b> & "Co"</script>')])
ODD_COLUMN = "company </script><i>&"
ODD_ANOMALY = '<script>alert("x")</script> & <b>3</b> values are missing'
ODD_OUTCOME = '<img src=x onerror="alert(1)"> the feed was mended'
SLICES = [ev.OVERALL, "payment_type=Credit Card", ODD_SLICE, "payment_type=Prcard"]
COLUMNS = ["trip_miles", "fare", "payment_type", "dropoff_community_area", ODD_COLUMN, "big_tipper"]

SETTINGS = ContinuedEvaluation.model_validate(
    {
        "limits": [
            {"metric": "auc", "at_least": 0.88, "below_promotion": 0.03},
            {"metric": "log_loss", "below_promotion": 0.05},
            {"metric": "accuracy", "at_least": 0.6, "slices": ["payment_type"]},
        ],
        "age": {"spans": 6},
    }
)

STORY: list[dict[str, Any]] = [
    {"span": 3, "champion": 1, "auc": 0.951},
    {"span": 4, "champion": 1, "auc": 0.947, "logged_auc": 0.946},
    {"span": 5, "champion": 1, "auc": 0.930, "rows": 61},
    {"span": 8, "champion": 1, "auc": 0.936, "moved": {("fare", "training"): 0.41}},
    {"span": 9, "champion": 2, "auc": 0.955},
    {"span": 10, "champion": 2, "auc": 0.842, "previous_auc": 0.931},
    {"span": 11, "champion": 1, "auc": 0.890, "since": 1},
    {
        "span": 12,
        "champion": 1,
        "auc": 0.915,
        "anomaly": ODD_ANOMALY,
        "moved": {(ODD_COLUMN, "before"): 0.62, ("payment_type", "served"): 0.37},
    },
    {"span": 12, "champion": 1, "auc": 0.921},
    {"span": 13, "champion": 1, "auc": 0.871, "moved": {("trip_miles", "training"): 0.33}},
    {"span": 14, "champion": 3, "auc": 0.953, "one_class": True},
    {"span": 15, "champion": 3, "auc": 0.861, "age": 7, "moved": {("fare", "training"): 0.35}},
]
FOLLOWED: dict[int, tuple[str, int | None]] = {
    3: ("version 2 was filed", 2),
    5: ("rolled back to 1", 1),
    7: (ODD_OUTCOME, None),
    9: ("version 3 was filed", 3),
}
"""What came of decisions, by the places in the story."""


def file_story(model: Path, source: str = "data/span-{SPAN}/*.csv") -> list[history.Record]:
    """Files the evaluations of the story in `registry/<model>`, oldest first."""
    chance = random.Random(18)
    filed = [_file(model, number, event, chance, source) for number, event in enumerate(STORY)]
    for number, (what, version) in FOLLOWED.items():
        history.note(str(model), filed[number], what, version=version)
    return filed


def _file(
    model: Path, number: int, event: dict[str, Any], chance: random.Random, source: str
) -> history.Record:
    evidence = _evidence(event, chance)
    record = history.Record(
        id=history.make_id(event["span"], event["champion"], str(number)),
        number=0,
        time=f"2026-{number + 1:02}-02T06:30:00+00:00",
        run_id=f"2026{number + 1:02}02-063000-1",
        source=source,
        evidence=evidence,
        decision=decide(evidence, SETTINGS),
        settings=SETTINGS.model_dump(mode="json"),
    )
    return history.add(str(model), record, b"statistics", np.arange(3, dtype=np.uint64))


def _evidence(event: dict[str, Any], chance: random.Random) -> ev.Evidence:
    champion, rows = event["champion"], event.get("rows", 3010)
    metrics = {"champion": _metrics(event["auc"], chance, rows, event)}
    metrics["heuristic"] = _metrics(0.90 + chance.uniform(-0.008, 0.008), chance, rows, {})
    if champion > 1:
        auc = event.get("previous_auc", event["auc"] - 0.02)
        metrics["previous"] = _metrics(auc, chance, rows, {})
        gain = ev.Value(value=event["auc"] - auc, low=event["auc"] - auc - 0.02, high=-0.01)
        metrics["over_previous"] = {ev.OVERALL: {"auc": gain}}
    if "logged_auc" in event:
        metrics["logged"] = _metrics(event["logged_auc"], chance, rows, {})
    anomaly = event.get("anomaly")
    found = [ev.Anomaly(column="company", kind="COLUMN_DROPPED", what=anomaly)] if anomaly else []
    return ev.Evidence(
        span=event["span"],
        rows=ev.Rows(total=rows, repeated=0.012, seen_before=0.03),
        champion=champion,
        previous=champion - 1 or None,
        metrics=metrics,
        rows_by_slice={place: rows // len(SLICES) for place in SLICES},
        promoted={"champion": _plain(0.955), "heuristic": _plain(0.90)},
        moved=_moved(event.get("moved", {}), chance),
        anomalies=found,
        joined=_joined(rows) if "logged_auc" in event else None,
        answers=ev.Answers(rows=rows, different=0.0002, largest=0.001),
        age=ev.Age(spans=event.get("age", 1), days=30.4),
        spans_since_retraining=event.get("since"),
    )


def _joined(rows: int) -> ev.Joined:
    return ev.Joined(
        joined=rows,
        unlabelled=412,
        without_key=0,
        other_versions=3,
        repeated_predictions=1,
        repeated_labels=0,
        conflicting_labels=2,
        foreign_labels=17,
        empty_labels=0,
    )


def _metrics(auc: float, chance: random.Random, rows: int, event: dict[str, Any]) -> ev.Metrics:
    """All slices; a slice with one class only has no AUC, and the last is not in every span."""
    half = 0.6 / rows**0.5
    found = {}
    for nth, place in enumerate(SLICES if rows > 100 else SLICES[:-1]):
        value = auc - 0.04 * nth + (chance.uniform(-0.02, 0.02) if nth else 0)
        found[place] = {
            "auc": _value(value, half * (1 + nth)),
            "log_loss": _value(1.16 - value, half),
            "accuracy": _value(value - 0.05, half),
            "calibration": _value(1.0, half),
        }
        if nth == 1 or event.get("one_class"):
            found[place]["auc"] = ev.Value(value=None)
    return found


def _value(value: float, half: float) -> ev.Value:
    return ev.Value(value=value, low=value - half, high=value + half)


def _plain(auc: float) -> ev.Plain:
    return {place: {"auc": auc, "log_loss": 1.16 - auc, "accuracy": 0.9} for place in SLICES}


def _moved(far: dict[tuple[str, str], float], chance: random.Random) -> list[ev.Moved]:
    found = []
    for against, limit in (("training", 0.3), ("before", 0.2), ("served", 0.3)):
        for column in COLUMNS if against != "served" else COLUMNS[:4]:
            number = column in ("trip_miles", "fare")
            measure = "jensen_shannon_divergence" if number else "infinity_norm"
            value = far.get((column, against), chance.uniform(0.005, 0.09))
            found.append(
                ev.Moved(column=column, measure=measure, against=against, value=value, limit=limit)
            )
    return found
