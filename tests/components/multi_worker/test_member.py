"""How the machines of a cluster find each other, and are not fooled by an earlier attempt."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.errors import PipelineStop
from components.multi_worker import member
from components.multi_worker.member import Meeting
from components.multi_worker.run import loopback
from components.trainer.core.interruption import START_AGAIN, Interrupted

WORKERS = 3


@pytest.fixture
def meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Meeting:
    """Of three workers; this process is the chief."""
    monkeypatch.setattr(member, "_PATIENCE", 1.0)
    monkeypatch.setattr(member, "_FAREWELL", 10.0)
    monkeypatch.setenv("TF_CONFIG", loopback(WORKERS)[0])
    return Meeting(str(tmp_path))


def _come(meeting: Meeting, number: int) -> dict[str, Any]:
    """What a member hears that waits for it."""
    for _ in range(200):
        if said := meeting.come(number, f"word {number}"):
            return said
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_all_members_get_the_job(meeting: Meeting) -> None:
    assert meeting.missing() == [1, 2]
    assert [meeting.come(number, f"word {number}") for number in (1, 2)] == [None, None]
    assert meeting.missing() == []
    meeting.say({"job": {"pipeline": "p"}})
    assert [_come(meeting, number)["job"] for number in (1, 2)] == [{"pipeline": "p"}] * 2


def test_a_job_of_an_earlier_attempt_is_not_taken(meeting: Meeting) -> None:
    for number in (1, 2):
        meeting.come(number, f"earlier {number}")
    meeting.say({"job": {"pipeline": "earlier"}})
    assert meeting.come(1, "word 1") is None, "it came before the chief, and finds the old file"
    meeting.open()
    assert meeting.missing() == [1, 2], "words of the earlier attempt are gone, too"
    assert meeting.come(1, "word 1") is None
    assert meeting.missing() == [2], "it has left its word again"
    meeting.come(2, "word 2")
    meeting.say({"job": {"pipeline": "now"}})
    assert _come(meeting, 1)["job"] == {"pipeline": "now"}


@pytest.mark.parametrize("code", [0, 1, START_AGAIN])
@pytest.mark.parametrize("late", [0.0, 0.7], ids=["early", "late"])
def test_members_end_like_a_chief_that_trains_nothing(
    meeting: Meeting, tmp_path: Path, code: int, late: float
) -> None:
    if code and late:
        pytest.skip("it does not wait with bad news")
    heard: list[Any] = []
    threads = [
        threading.Timer(late, lambda n=number: heard.append(_come(meeting, n))) for number in (1, 2)
    ]

    def run() -> int:
        for thread in threads:
            thread.start()
        while not late and meeting.missing():
            time.sleep(0.05)
        return code

    assert member.take_part(str(tmp_path), run, print) == code
    for thread in threads:
        thread.join()
    assert [said["over"] for said in heard] == [code, code]


def test_a_chief_without_its_members_gives_up(meeting: Meeting, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="workers 1, 2 did not come within"):
        member.take_part(str(tmp_path), lambda: member.train_as_chief(None, []), print)  # type: ignore[arg-type]


def test_a_parameter_server_has_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads(loopback(WORKERS)[0])
    config["cluster"]["ps"] = ["127.0.0.1:1"]
    monkeypatch.setenv("TF_CONFIG", json.dumps(config | {"task": {"type": "ps", "index": 0}}))
    with pytest.raises(PipelineStop, match="tasks of type ps; only 'chief' and 'worker'"):
        member.take_part(str(tmp_path), lambda: 0, print)


def test_without_a_cluster_the_command_just_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert member.take_part(str(tmp_path), lambda: 7, print) == 7
