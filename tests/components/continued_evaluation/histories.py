"""A year of a model's evaluations, filed for real: what the listing and the page are tested on."""

from pathlib import Path
from typing import Any

import numpy as np

from components.continued_evaluation import history
from components.continued_evaluation.decision import decide
from components.continued_evaluation.evidence import Joined
from components.evaluation.slices import slice_name
from tests.components.continued_evaluation.evidences import (
    SETTINGS,
    by_slice,
    models,
    moved,
    ordinary,
    value,
)

ODD_COLUMN = "company </script><i>&"
ODD_ANOMALY = '<script>alert("x")</script> & <b>3</b> values are missing'
ODD_OUTCOME = '<img src=x onerror="alert(1)"> the feed was mended'
_ODD = slice_name([("shop", '<b>Cash</b> & "Co"</script>')]).removeprefix("shop=")
_FINE = {"A": 0.8, _ODD: 0.75}
_LATE = dict.fromkeys(Joined.model_fields, 0) | {"joined": 1000, "unlabelled": 412}
_WORSE = {"overall": {"auc": value(-0.1), "log_loss": value(0.1)}}

STORY: list[dict[str, Any]] = [
    {"span": 3, "champion": 1, "moved": moved("before", 0.085, column="shop")},
    {"span": 4, "metrics": models(logged=by_slice(0.91, 0.2, _FINE)), "joined": _LATE},
    {"span": 5, "rows": {"total": 61}},
    {"span": 8, "moved": moved("training", 0.41)},
    {"span": 9, "champion": 2, "metrics": models(champion=by_slice(0.95, 0.2, _FINE))},
    {"span": 10, "metrics": models(champion=by_slice(0.7, 0.2, _FINE), over_previous=_WORSE)},
    {"span": 11, "age": {"spans": 5, "days": 30.0}, "spans_since_retraining": 1},
    {
        "span": 12,
        "anomalies": [{"column": "company", "kind": "COLUMN_DROPPED", "what": ODD_ANOMALY}],
        "moved": [*moved("before", 0.62, column=ODD_COLUMN), *moved("served", 0.37)],
    },
    {"span": 12},
    {"span": 13, "moved": moved("training", 0.33)},
    {"span": 14, "metrics": models(champion=by_slice(None, 0.2, _FINE))},
    {"span": 15, "age": {"spans": 7, "days": 30.0}, "moved": moved("training", 0.35)},
]
FOLLOWED: dict[int, tuple[str, int | None]] = {
    3: ("version 2 was filed", 2),
    5: ("rolled back to 1", 1),
    7: (ODD_OUTCOME, None),
    9: ("version 3 was filed", 3),
}
"""What came of decisions, by the places in the story."""


def file_story(model: Path) -> None:
    """Files the evaluations of the story in `registry/<model>`, oldest first."""
    for number, event in enumerate(STORY):
        evidence = ordinary(**event)
        record = history.Record(
            id=history.make_id(event["span"], evidence.champion, str(number)),
            number=0,
            time=f"2026-{number + 1:02}-02T06:30:00+00:00",
            run_id=f"2026{number + 1:02}02-063000-1",
            source="data/span-{SPAN}/*.csv",
            evidence=evidence,
            decision=decide(evidence, SETTINGS),
            settings=SETTINGS.model_dump(mode="json"),
        )
        filed = history.add(str(model), record, b"statistics", np.arange(3, dtype=np.uint64))
        if number in FOLLOWED:
            what, version = FOLLOWED[number]
            history.note(str(model), filed, what, version=version)
