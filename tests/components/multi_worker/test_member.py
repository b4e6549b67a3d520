"""How the machines of a cluster find each other, and are not fooled by an earlier attempt."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.errors import PipelineStop
from components.multi_worker import member
from components.multi_worker.member import Meeting
from components.multi_worker.run import loopback
from components.trainer.core import strategy
from components.trainer.core.interruption import START_AGAIN, Interrupted

WORKERS = 3


@pytest.fixture
def meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Meeting:
    """Of three workers; this process is the chief."""
    monkeypatch.setattr(member, "_PATIENCE", 1.0)
    monkeypatch.setattr(member, "_FAREWELL", 10.0)
    monkeypatch.setenv("TF_CONFIG", loopback(WORKERS)[0])
    return Meeting(str(tmp_path), strategy.cluster())


def _come(meeting: Meeting, number: int) -> dict[str, Any]:
    """What a member hears that waits for it."""
    for _ in range(200):
        if said := meeting.come(number, f"word {number}"):
            return said
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_all_members_get_the_job_and_none_of_an_earlier_attempt(meeting: Meeting) -> None:
    for number in (1, 2):
        meeting.come(number, f"earlier {number}")
    meeting.say({"job": {"pipeline": "earlier"}})
    assert meeting.come(1, "word 1") is None, "it came before the chief, and finds the old file"
    shutil.rmtree(meeting.folder)  # as the chief does at its start
    assert meeting.missing() == [1, 2], "words of the earlier attempt are gone, too"
    assert meeting.come(1, "word 1") is None
    assert meeting.missing() == [2], "it has left its word again"
    meeting.come(2, "word 2")
    meeting.say({"job": {"pipeline": "now"}})
    assert [_come(meeting, number)["job"] for number in (1, 2)] == [{"pipeline": "now"}] * 2


@pytest.mark.parametrize(("code", "late"), [(0, 0.0), (0, 0.7), (START_AGAIN, 0.0)])
def test_members_end_like_a_chief_that_trains_nothing(
    meeting: Meeting, tmp_path: Path, code: int, late: float
) -> None:
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


def test_without_a_cluster_the_command_just_runs_and_a_wrong_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert member.take_part(str(tmp_path), lambda: 7, print) == 7
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"ps": ["a:1"]}}')
    with pytest.raises(PipelineStop, match="tasks of type ps; only 'chief' and 'worker'"):
        member.take_part(str(tmp_path), lambda: 0, print)
