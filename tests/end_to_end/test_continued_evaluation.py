"""Spans arrive one after the other, and the champion is judged on each before anyone trains on it.

Whole processes, as cron would start them, on the small data.
"""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.continued_evaluation import history
from components.registry import store
from tests import small
from tests.end_to_end.project import Project, Result

SETTINGS: dict[str, Any] = copy.deepcopy(small.SETTINGS) | {
    "data": {**small.SETTINGS["data"], "pattern": "span-{SPAN}/*.csv", "test_spans": "newest"},
    "continued_evaluation": {
        "limits": [{"metric": "auc", "at_least": 0.6, "below_promotion": 0.1}],
        "age": {"spans": 2},
        "retraining": {"spans": 2, "cool_down": 0},
    },
}
SETTINGS["evaluation"]["thresholds"] = [{"metric": "auc", "at_least": 0.6, "over_champion": -0.1}]


class Loop:
    """The project, and the two commands of its schedule."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder, SETTINGS)
        self.model = str(self.project.registry)

    def arrive(self, span: int, rows: list[dict[str, Any]]) -> None:
        small.write_csv(self.project.folder / "data" / f"span-{span}" / "rows.csv", rows)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return self.project.start(*arguments, name="continued-evaluation")

    def evaluate(self, *arguments: str) -> Result:
        return self.project.run(*arguments, name="continued-evaluation")

    def decisions(self) -> list[tuple[int, int, str]]:
        """Span, version judged, and decision of all evaluations."""
        return [
            (r.evidence.span, r.evidence.champion, r.decision.action)
            for r in history.read_all(self.model)
        ]

    def champion(self) -> int:
        return store.read_labels(self.model)["champion"]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """Trained on span 1."""
    made = Loop(tmp_path_factory.mktemp("loop") / "project")
    made.arrive(1, small.rows(1500, seed=1))
    assert made.project.run().code == 0
    assert made.champion() == 1
    return made


def test_from_fresh_labels_to_a_new_champion(loop: Loop) -> None:
    loop.arrive(2, small.rows(1500, seed=2))
    kept = loop.evaluate()
    assert kept.code == 0, kept.output
    assert loop.decisions() == [(2, 1, "keep")]
    assert "Version 1 on span 2: keep" in kept.output
    [record] = history.read_all(loop.model)
    assert record.evidence.rows.total == 1500
    assert not {m.column for m in record.evidence.moved if m.value > m.limit}

    # Again: everything is there already, and nothing is counted twice.
    again = loop.evaluate()
    assert again.code == 0
    assert again.computed() == ["Decide"]
    assert loop.decisions() == [(2, 1, "keep")]

    # Labels that are drawn by lot: the model fell, and so did the rule that nobody trained.
    shuffled = small.rows(1500, seed=3)
    for row, other in zip(shuffled, small.rows(1500, seed=4), strict=True):
        row["bought"] = other["bought"]
    loop.arrive(3, shuffled)
    suspected = loop.evaluate()
    assert suspected.code == 3, suspected.output
    assert "the heuristic, which no training can spoil, fell as well" in suspected.output
    assert loop.decisions()[-1] == (3, 1, "investigate")
    assert loop.champion() == 1

    # Span 4 finds a champion that is three spans old. The retraining takes spans 3 and 4.
    loop.arrive(3, small.rows(1500, seed=3))
    loop.arrive(4, small.rows(1500, seed=5))
    retrained = loop.evaluate()
    assert retrained.code == 0, retrained.output
    assert loop.decisions()[-1] == (4, 1, "retrain")
    assert "the champion is 3 spans old; the limit is 2" in retrained.output
    assert loop.champion() == 2
    manifest = store.read_manifest(loop.model, 2)
    assert manifest["data"][0]["spans"] == "[3, 4]"
    # Compared on the newest span's test rows alone.
    assert 200 < manifest["rows_by_slice"]["overall"] < 400
    last = history.read_all(loop.model)[-1]
    followed = history.followed(loop.model, last.id)
    assert followed is not None
    assert (followed.version, followed.what) == (2, "retrained: version 2, now champion")

    # Its own training rows are no fresh ones.
    stale = loop.evaluate()
    assert stale.code == 0, stale.output
    assert "was trained on span 4" in stale.output
    assert stale.outcomes["JudgedModels"] == "skipped"
    assert len(loop.decisions()) == 3

    page = loop.project.folder / "workspace" / "reports" / "small-evaluations.html"
    assert all(record.id in page.read_text() for record in history.read_all(loop.model))
    listed = subprocess.run(
        [sys.executable, "-m", "pipeline", "evaluations", "-c", "small", "--json"],
        cwd=loop.project.folder,
        env=small.environment_of_a_copy(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(listed.stdout)) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{**row, "bought": ""} for row in small.rows(200)], "column 'bought'"),
        ([{**row, "bought": 1} for row in small.rows(200)], "all labels of the span are the same"),
        (
            [{k: v for k, v in row.items() if k != "bought"} for row in small.rows(200)],
            "missing: bought",
        ),
    ],
    ids=["no labels", "one class", "no label column"],
)
def test_bad_spans_have_a_clear_word(loop: Loop, rows: Any, words: str) -> None:
    before = loop.decisions()
    loop.arrive(90, rows)
    try:
        told = loop.evaluate()
    finally:
        (loop.project.folder / "data" / "span-90" / "rows.csv").unlink()
        (loop.project.folder / "data" / "span-90").rmdir()
    assert words in told.output
    assert told.code in (1, 3)
    assert "Traceback" not in told.output
    assert loop.decisions()[: len(before)] == before


def test_an_unknown_span_has_a_clear_word(loop: Loop) -> None:
    told = loop.evaluate("--span", "77")
    assert told.code == 1
    assert "data.spans asks for 77" in told.output
