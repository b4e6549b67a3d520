"""The history is whole and append-only, and what a decision asks for is done once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.continued_evaluation import history
from components.continued_evaluation.decision import decide
from components.continued_evaluation.judging import follow
from components.continued_evaluation.settings import ContinuedEvaluation
from components.errors import PipelineStop
from components.registry import labels, store
from pipeline.loading import PROJECT
from tests.components.continued_evaluation.evidences import SETTINGS, models, ordinary, value
from tests.components.registry import registries

HASHES = np.arange(3, dtype=np.uint64)
BY = labels.Mover("test", "test")
AUTOMATIC = SETTINGS.model_copy(update={"roll_back": "automatic"})
OLD = {"age": {"spans": 9, "days": 90.0}}
WORSE = {
    "metrics": models(
        champion={"overall": {"auc": value(0.7), "log_loss": value(0.2), "accuracy": value(0.8)}},
        over_previous={"overall": {"auc": value(-0.2), "log_loss": value(0.0)}},
    )
}


def record(span: int, **changes: object) -> history.Record:
    evidence = ordinary(span=span, **changes)
    return history.Record(
        id=history.make_id(span, 3, "data"),
        number=0,
        time=store.now(),
        run_id="run",
        source="data/span-{SPAN}/*.csv",
        evidence=evidence,
        decision=decide(evidence, SETTINGS),
        settings=SETTINGS.model_dump(mode="json"),
    )


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A registry in which version 3 is champion, after 2 and 1."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"model")
    folder = str(tmp_path / "small")
    for number in (1, 2, 3):
        registries.add(folder, str(tmp_path / "model"), str(number))
        labels.promote(folder, number, BY, number - 1 or None)
    return folder


def filed(model: str, span: int = 12, **changes: Any) -> history.Record:
    return history.add(model, record(span, **changes), b"stats", HASHES)


def outcome(model: str, record: history.Record) -> history.Followed:
    noted = history.followed(model, record.id)
    assert noted is not None
    return noted


def test_an_evaluation_is_filed_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    model = str(tmp_path / "small")
    left = Path(model, history.FOLDER, ".tmp-span-7-v3-00000000")  # of a killed process
    left.mkdir(parents=True)
    first = filed(model, 7)
    assert first.number == 1
    assert filed(model, 7, champion=9) == first
    second = filed(model, 8)
    assert (second.number, second.id) == (2, history.make_id(8, 3, "data"))
    assert history.read_all(model) == [first, second]
    assert history.path_of(model, first.id, history.STATISTICS).read_bytes() == b"stats"
    assert np.load(history.path_of(model, first.id, history.HASHES)).tolist() == [0, 1, 2]
    assert store.list_versions(model) == []
    assert not left.exists()
    assert history.make_id(7, 3, "a", "b") != history.make_id(7, 3, "ab")
    path = history.path_of(model, first.id, history.EVALUATION_FILE)
    path.write_text(path.read_text()[:50])
    with pytest.raises(PipelineStop, match=r"evaluation.json cannot be read .*the other evaluat"):
        history.read_all(model)


_FILE = """
import os, signal, sys
import numpy as np
from components import files
from tests.components.continued_evaluation.test_history import filed
steps = 0
def counted(function):
    def call(*arguments):
        global steps
        steps += 1
        if steps == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call
os.rename, files.sync = counted(os.rename), counted(files.sync)
np.save = counted(np.save)
filed(sys.argv[1], 8)
"""


@pytest.mark.prove
def test_killed_at_any_step_it_leaves_all_or_nothing(tmp_path: Path) -> None:
    model = str(tmp_path / "small")
    filed(model, 7)
    killed = 0
    for step in range(1, 20):
        done = subprocess.run(
            [sys.executable, "-c", _FILE, model, str(step)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            check=False,
        )
        found = [entry.evidence.span for entry in history.read_all(model)]
        assert found in ([7], [7, 8])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 5
    assert [entry.number for entry in history.read_all(model)] == [1, 2]
    assert [p.name for p in (tmp_path / "small" / history.FOLDER).glob(".*")] == []


def test_what_is_due(model: str) -> None:
    kept, old, worse = filed(model, 1), filed(model, 2, **OLD), filed(model, 3, **WORSE)
    assert [one.decision.action for one in (kept, old, worse)] == ["keep", "retrain", "roll_back"]
    assert history.due(model, kept, SETTINGS) == "nothing"
    assert history.due(model, old, SETTINGS) == "retrain"
    assert history.due(model, worse, SETTINGS) == "look"
    assert history.due(model, worse, AUTOMATIC) == "roll_back"
    waiting = ContinuedEvaluation.model_validate({"retraining": {"start": False}})
    assert history.due(model, old, waiting) == "look"
    history.note(model, old, "training run started", run="1")
    assert history.due(model, old, SETTINGS) == "nothing"
    assert (outcome(model, old).what, outcome(model, old).run) == ("training run started", "1")


@pytest.mark.parametrize(
    ("settings", "spans", "warm_start"),
    [
        ({"spans": 4}, {"count": 4, "start": 0, "last": 12}, None),
        ({"spans": None, "first": 3}, {"count": 10, "start": 3, "last": 12}, None),
        ({"spans": 2, "first": 1, "warm_start": True}, {"count": 2, "start": 1, "last": 12}, 3),
    ],
)
def test_a_retraining_has_a_rolling_or_a_growing_window(
    settings: dict[str, Any], spans: dict[str, int], warm_start: int | None
) -> None:
    wanted = ContinuedEvaluation.model_validate({"retraining": settings})
    made = record(12).model_copy(update={"settings": wanted.model_dump(mode="json")})
    assert history.retraining(made) == {"spans": spans, "warm_start": warm_start}
    plain = made.model_copy(update={"has_spans": False})
    assert history.retraining(plain)["spans"] is None


def trained(model: str, last: int, time: str = "") -> int:
    """Files what the retraining of a span's evaluation makes."""
    config = {"data": {"spans": {"count": 4, "start": 0, "skip": 0, "last": last}}}
    time = time or store.now()
    saved = str(Path(model).parent / "model")
    return registries.add(model, saved, f"trained {last} {time}", config=config, time=time)


@pytest.mark.parametrize("label", [store.CHAMPION, store.CANDIDATE])
def test_a_retraining_killed_after_its_version_was_filed_is_known_from_the_registry(
    model: str, label: str
) -> None:
    """A version of other spans, or of before, is not its outcome."""
    made = filed(model, **OLD)
    trained(model, 12, time="2020-01-01T00:00:00+00:00")
    trained(model, 11)
    history.settle(model)
    assert history.due(model, made, SETTINGS) == "retrain"
    version = trained(model, 12)
    if label == store.CHAMPION:
        labels.promote(model, version, BY, 3)
    else:
        labels.assign(model, label, version, BY)
    history.settle(model)
    assert outcome(model, made).version == version == 6
    assert outcome(model, made).what.endswith(label)
    assert history.due(model, made, SETTINGS) == "nothing"


def test_a_step_that_is_tried_again_rolls_back_once(model: str) -> None:
    made = filed(model, **WORSE)
    assert history.roll_back(model, made) == 2
    history.path_of(model, made.id, history.FOLLOWED_FILE).unlink()  # killed before it was noted
    assert history.roll_back(model, made) == 2
    assert store.read_labels(model)[store.CHAMPION] == 2
    (move,) = [one for one in labels.read_history(model) if one["action"] == "rollback"]
    assert move["who"] == f"continued evaluation {made.id}"
    assert outcome(model, made).version == 2
    while store.read_labels(model)[store.CHAMPION] > 1:
        labels.rollback(model, BY)
    first = filed(model, 13, champion=1, **WORSE)
    with pytest.raises(PipelineStop, match="no earlier champion"):
        history.roll_back(model, first)
    assert history.followed(model, first.id) is None


STARTED = """
import json, os
from pathlib import Path

def start(name, retraining, *, folder):
    with open(Path(folder, "started.jsonl"), "a") as file:
        file.write(json.dumps([name, retraining]) + "\\n")
    return "run 1"

def fail(name, retraining, *, folder):
    start(name, retraining, folder=folder)
    raise RuntimeError("killed")
"""


def test_the_step_hands_a_retraining_to_its_starter(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And notes it: nothing is started again. Killed before, it asks again."""
    (tmp_path / "started_here.py").write_text(STARTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = filed(model, **OLD)
    starter = {"function": "started_here:fail", "arguments": {"folder": str(tmp_path)}}
    with pytest.raises(RuntimeError, match="killed"):
        follow(starter, "/mnt/data", model, made, SETTINGS)
    assert history.followed(model, made.id) is None
    for _ in range(2):
        follow({**starter, "function": "started_here:start"}, "/mnt/data", model, made, SETTINGS)
    lines = [json.loads(line) for line in (tmp_path / "started.jsonl").read_text().splitlines()]
    spans = {"count": 4, "start": 0, "last": 12}
    wanted = {"spans": spans, "warm_start": None, "data_path": "/mnt/data"}
    assert lines == 2 * [[made.id, wanted]]
    noted = outcome(model, made)
    assert (noted.what, noted.run) == (f"training run {made.id} started", "run 1")
    assert history.read_all(model) == [made.model_copy(update={"followed": noted})]
