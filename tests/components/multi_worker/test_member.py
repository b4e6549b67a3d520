"""How the machines of a cluster find each other, and are not fooled by an earlier attempt."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from components.errors import PipelineStop
from components.multi_worker import member
from components.multi_worker.rendezvous import Chief, Refused, connect
from components.multi_worker.run import loopback
from components.trainer.core.interruption import START_AGAIN, Interrupted

WORKERS = 3


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(member, "_PATIENCE", 1.5)
    monkeypatch.setattr(member, "_FAREWELL", 10.0)
    return loopback(WORKERS)


@pytest.fixture
def chief(places: list[str]) -> Iterator[Chief]:
    made = Chief(_port(places), "us", WORKERS - 1)
    yield made
    made.close()


def _port(places: list[str]) -> int:
    return int(json.loads(places[0])["cluster"]["worker"][0].rpartition(":")[2])


def _address(places: list[str]) -> str:
    return f"127.0.0.1:{_port(places)}"


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("waited in vain")


def test_all_members_get_the_job(chief: Chief, places: list[str]) -> None:
    lines = [connect(_address(places), "us", number) for number in (1, 2)]
    _wait(lambda: not chief.missing())
    chief.send({"job": {"pipeline": "p"}})
    assert [line.receive(5) for line in lines] == [{"job": {"pipeline": "p"}}] * 2


def test_the_port_is_free_for_the_training_while_members_are_connected(
    chief: Chief, places: list[str]
) -> None:
    line = connect(_address(places), "us", 1)
    _wait(lambda: chief.missing() == [2])
    chief.stop_listening()
    with socket.create_server(("", _port(places))):
        assert line.is_open()
        assert chief.missing() == [2]


def test_a_member_that_is_gone_is_missing_and_may_come_again(
    chief: Chief, places: list[str]
) -> None:
    line = connect(_address(places), "us", 2)
    _wait(lambda: chief.missing() == [1])
    line.close()
    assert chief.missing() == [1, 2]
    again = connect(_address(places), "us", 2)
    _wait(lambda: chief.missing() == [1])
    again.close()


def test_a_member_of_another_cluster_is_refused(chief: Chief, places: list[str]) -> None:
    with pytest.raises(Refused, match="is not the chief"):
        connect(_address(places), "them", 1)
    assert chief.missing() == [1, 2]


@pytest.mark.parametrize(
    "words", [b"\x00\x00\x12\x04binary\n", b"[1]\n", b'{"chief": "them"}\n', b""]
)
def test_what_is_no_chief_is_not_believed(words: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(words)
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Refused):
            connect(f"127.0.0.1:{server.getsockname()[1]}", "us", 1)


def _joined(places: list[str], number: int, patch: pytest.MonkeyPatch) -> int:
    patch.setenv("TF_CONFIG", places[number])
    return member.take_part(lambda: pytest.fail("only the chief runs the pipeline"), print)


def test_without_a_chief_a_member_gives_up(
    places: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert _joined(places, 1, monkeypatch) == START_AGAIN
    assert f"waiting for the chief at {_address(places)}" in caplog.text
    assert "no chief at" in caplog.text


def test_a_chief_that_dies_sends_its_members_to_start_again(
    places: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TF_CONFIG", places[1])
    chief = Chief(_port(places), member._cluster(), WORKERS - 1)

    def die() -> None:
        _wait(lambda: chief.missing() == [2])
        chief.close()

    threading.Thread(target=die).start()
    assert _joined(places, 1, monkeypatch) == START_AGAIN
    assert "the chief is gone (the connection was closed)" in caplog.text


@pytest.mark.parametrize("code", [0, 1, START_AGAIN])
def test_members_end_like_a_chief_that_trains_nothing(
    places: list[str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("TF_CONFIG", places[0])
    heard: list[Any] = []

    def come(number: int) -> None:
        line = _keep_trying(lambda: connect(_address(places), member._cluster(), number))
        heard.append(line.receive(5))

    threads = [threading.Thread(target=come, args=[number]) for number in (1, 2)]

    def run() -> int:
        for thread in threads:
            thread.start()
        _wait(lambda: not member._leading[0].missing())
        return code

    assert member.take_part(run, print) == code
    for thread in threads:
        thread.join()
    assert heard == [{"over": code}] * 2


def test_a_chief_that_trains_nothing_waits_for_late_members(
    places: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", places[0])
    cluster, heard = member._cluster(), []

    def come(number: int) -> None:
        heard.append(connect(_address(places), cluster, number).receive(5))

    def run() -> int:
        for number in (1, 2):
            threading.Timer(0.5 * number, come, args=[number]).start()
        return 0

    assert member.take_part(run, print) == 0
    _wait(lambda: heard == [{"over": 0}] * 2)


def _keep_trying(attempt: Callable[[], Any]) -> Any:
    for _ in range(50):
        try:
            return attempt()
        except Refused:
            threading.Event().wait(0.05)
    raise AssertionError("refused")


def test_a_chief_without_its_members_gives_up(
    places: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", places[0])
    with pytest.raises(Interrupted, match="workers 1, 2 did not come within"):
        member.train_as_chief(None, [])  # type: ignore[arg-type]


def test_a_parameter_server_has_no_part(places: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads(places[0])
    config["cluster"]["ps"] = ["127.0.0.1:1"]
    monkeypatch.setenv("TF_CONFIG", json.dumps(config | {"task": {"type": "ps", "index": 0}}))
    with pytest.raises(PipelineStop, match="tasks of type ps; only 'chief' and 'worker'"):
        member.take_part(lambda: 0, print)


def test_without_a_cluster_the_command_just_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert member.take_part(lambda: 7, print) == 7
