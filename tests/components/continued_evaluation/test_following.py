"""What follows from a decision: once, whoever is asked to see to it, and however often."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.continued_evaluation import component, following, history
from components.continued_evaluation.settings import ContinuedEvaluation
from components.errors import PipelineStop
from components.registry import labels, store
from tests.components.continued_evaluation.evidences import SETTINGS, models, value
from tests.components.continued_evaluation.test_history import HASHES, record
from tests.components.registry import registries

BY = labels.Mover("test", "test")
AUTOMATIC = SETTINGS.model_copy(update={"roll_back": "automatic"})
OLD = {"age": {"spans": 9, "days": 90.0}}
WORSE = {
    "metrics": models(
        champion={"overall": {"auc": value(0.7), "log_loss": value(0.2), "accuracy": value(0.8)}},
        over_previous={"overall": {"auc": value(-0.2), "log_loss": value(0.0)}},
    )
}


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A registry in which version 3 is champion, after 2 and 1."""
    folder = str(tmp_path / "small")
    for number in (1, 2, 3):
        registries.add(folder, str(saved_model(tmp_path)), str(number))
        labels.promote(folder, number, BY, number - 1 or None)
    return folder


def saved_model(folder: Path) -> Path:
    made = folder / "model"
    made.mkdir(exist_ok=True)
    (made / "saved_model.pb").write_bytes(b"model")
    return made


def filed(model: str, span: int = 12, **changes: Any) -> history.Record:
    return history.add(model, record(span, **changes), b"", HASHES)


def test_what_is_due(model: str) -> None:
    kept, old, worse = filed(model, 1), filed(model, 2, **OLD), filed(model, 3, **WORSE)
    assert [one.decision.action for one in (kept, old, worse)] == ["keep", "retrain", "roll_back"]
    assert following.due(model, kept, SETTINGS) == "nothing"
    assert following.due(model, old, SETTINGS) == "retrain"
    assert following.due(model, worse, SETTINGS) == "look"
    assert following.due(model, worse, AUTOMATIC) == "roll_back"
    waiting = ContinuedEvaluation.model_validate({"retraining": {"start": False}})
    assert following.due(model, old, waiting) == "look"
    following.note(model, old, "training run started", run="1")
    assert following.due(model, old, SETTINGS) == "nothing"


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
    assert following.retraining(made) == following.Retraining(spans=spans, warm_start=warm_start)
    plain = made.model_copy(update={"has_spans": False})
    assert following.retraining(plain).spans is None


def trained(model: str, saved: Path, last: int, time: str = "") -> int:
    """Files what the retraining of a span's evaluation makes."""
    spans = {"count": 4, "start": 0, "skip": 0, "last": last}
    config = {"data": {"spans": spans}}
    time = time or history.now()
    name = f"trained {last} {time}"
    return registries.add(model, str(saved_model(saved)), name, config=config, time=time)


@pytest.mark.parametrize("promote", ["automatic", "manual"])
def test_a_retraining_killed_after_its_version_was_filed_is_known_from_the_registry(
    model: str, tmp_path: Path, promote: str
) -> None:
    made = filed(model, **OLD)
    version = trained(model, tmp_path, 12)
    if promote == "automatic":
        labels.promote(model, version, BY, 3)
    else:
        labels.assign(model, store.CANDIDATE, version, BY)
    following.settle(model)
    noted = history.followed(model, made.id)
    assert noted is not None
    assert noted.version == version == 4
    assert noted.what.endswith("now champion" if promote == "automatic" else "a candidate")
    assert following.due(model, made, SETTINGS) == "nothing"


def test_a_version_of_other_spans_or_of_before_is_not_its_outcome(
    model: str, tmp_path: Path
) -> None:
    made = filed(model, **OLD)
    trained(model, tmp_path, 12, time="2020-01-01T00:00:00+00:00")
    trained(model, tmp_path, 11)
    following.settle(model)
    assert history.followed(model, made.id) is None
    assert following.due(model, made, SETTINGS) == "retrain"


def test_a_step_that_is_tried_again_rolls_back_once(model: str) -> None:
    made = filed(model, **WORSE)
    assert following.roll_back(model, made) == 2
    history.path_of(model, made.id, history.FOLLOWED_FILE).unlink()  # killed before it was noted
    assert following.roll_back(model, made) == 2
    assert store.read_labels(model)[store.CHAMPION] == 2
    (move,) = [one for one in labels.read_history(model) if one["action"] == "rollback"]
    assert move["who"] == f"continued evaluation {made.id}"
    noted = history.followed(model, made.id)
    assert noted is not None
    assert noted.version == 2


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

    def follow(function: str) -> None:
        starter = {"function": f"started_here:{function}", "arguments": {"folder": str(tmp_path)}}
        component._follow(starter, "/mnt/data", model, made, SETTINGS)

    with pytest.raises(RuntimeError, match="killed"):
        follow("fail")
    assert history.followed(model, made.id) is None
    for _ in range(2):
        follow("start")
    lines = [json.loads(line) for line in (tmp_path / "started.jsonl").read_text().splitlines()]
    spans = {"count": 4, "start": 0, "last": 12}
    wanted = {"spans": spans, "warm_start": None, "data_path": "/mnt/data"}
    assert lines == 2 * [[made.id, wanted]]
    noted = history.followed(model, made.id)
    assert noted is not None
    assert (noted.what, noted.run) == (f"training run {made.id} started", "run 1")
    assert history.read_all(model) == [made]


def test_there_may_be_nothing_to_roll_back_to(tmp_path: Path) -> None:
    folder = str(tmp_path / "small")
    registries.add(folder, str(saved_model(tmp_path)), "1")
    labels.promote(folder, 1, BY, None)
    made = filed(folder, champion=1, **WORSE)
    with pytest.raises(PipelineStop, match="no earlier champion"):
        following.roll_back(folder, made)
    assert history.followed(folder, made.id) is None
