"""The replays, shortened: real rows, real trainings, the real command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.continued_evaluation import history
from components.registry import store

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.prove


def replayed(command, folder, *arguments):
    """The finished command; its workspace is `folder`."""
    where = ["--set", f"workspace={folder}", "--set", f"data.path={folder}/data"]
    return subprocess.run(
        [sys.executable, "-m", command, *where, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(1200)
def test_a_champion_lives_through_quarters_and_is_renewed(tmp_path):
    folder = tmp_path / "replay"
    # An age of one span, so that six spans are enough for a renewal.
    young = ["--set", "continued_evaluation.age.spans=1"]
    done = replayed("benchmarks.replay", folder, "--last", "6", *young)
    assert done.returncode == 0, done.stdout + done.stderr
    model = str(folder / "registry" / "replay")

    first, second = history.read_all(model)
    assert [r.evidence.span for r in (first, second)] == [5, 6]
    assert [r.evidence.rows.total for r in (first, second)] == [1231, 1380]
    assert (first.evidence.champion, first.decision.action) == (1, "keep")
    assert (second.evidence.champion, second.decision.action) == (1, "retrain")
    assert "age" in [reason.kind for reason in second.decision.reasons]
    assert {moved.against for moved in second.evidence.moved} == {"training", "before"}

    assert store.list_versions(model) == [1, 2]
    assert json.loads(store.read_manifest(model, 1)["data"][0]["spans"]) == [1, 2, 3, 4]
    assert json.loads(store.read_manifest(model, 2)["data"][0]["spans"]) == [3, 4, 5, 6]
    assert history.followed(model, second.id).version == 2

    champion = store.read_labels(model)["champion"]
    lines = re.findall(r"^ +(\d+)  (201\d Q\d) .* (keep|retrain) +v(\d)", done.stdout, re.M)
    assert lines == [
        ("5", "2014 Q1", "keep", "1"),
        ("6", "2014 Q2", "retrain", str(champion)),
    ]
    page = folder / "reports" / "replay-evaluations.html"
    assert page.stat().st_size > 0
    assert str(page) in done.stdout

    again = replayed("benchmarks.replay", folder, "--last", "5")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [record.evidence.span for record in history.read_all(model)] == [5]
    assert store.list_versions(model) == [1]


@pytest.mark.timeout(1200)
def test_faults_are_found_and_clean_spans_are_not_accused(tmp_path):
    folder = tmp_path / "faults"
    chosen = ["--last", "6", "--span", "6"]
    for fault in ("renamed category", "shuffled labels"):
        chosen += ["--fault", fault]
    done = replayed("benchmarks.faults", folder, *chosen)
    assert done.returncode == 0, done.stdout + done.stderr

    lines = dict(re.findall(r"^  span +(\d, [a-z ]+): (.*)$", done.stdout, re.M))
    assert lines["5, no fault"] == lines["6, no fault"] == "keep"
    assert re.match(r"investigate \(.*anomaly payment_type", lines["6, renamed category"])
    assert re.match(r"investigate \(.*labels auc", lines["6, shuffled labels"])
    clean = history.read_all(str(folder / "registry" / "replay"))
    assert [record.evidence.span for record in clean] == [5, 6]
