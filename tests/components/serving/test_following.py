"""The server follows the labels, and nobody who asks meanwhile notices."""

import asyncio
import gc
import json
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.inference.model import Chosen, LoadedVersion
from components.registry import store
from components.serving.repository import Versions
from components.serving.served import ServedVersion
from components.serving.settings import Serving
from tests.components.serving import servers
from tests.components.serving.servers import MODEL, Server, expected, until

ROW = {"hour": 1}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 4; 4 is damaged."""
    folder = tmp_path_factory.mktemp("workspace") / "registry" / MODEL
    for version in (1, 2, 3, 4):
        servers.add(folder, version)
    (folder / "4" / "saved_model.pb").write_bytes(b"damaged")
    write_labels(folder, champion=1)
    return folder


@pytest.fixture(scope="module")
def running(registry: Path) -> Iterator[Server]:
    server = Server(registry)
    yield server
    assert server.stop() == 0


@pytest.fixture
def server(running: Server, registry: Path) -> Server:
    """It serves version 1, the champion, and there is no other label."""
    write_labels(registry, champion=1)
    until(lambda: served(running) == 1)
    until(lambda: running.predict([ROW], "/labels/previous").status_code == 404)
    return running


def write_labels(registry: Path, **labels: int) -> None:
    """Sets all labels, whatever they point to, unlike `components.registry.labels`."""
    entry = {
        **{"n": 1, "time": "2024-02-29T12:00:00+00:00", "who": "test", "why": "test"},
        **{"action": "promote", "moves": {}, "labels": labels, "champions": [labels["champion"]]},
    }
    write_journal(registry, json.dumps(entry))


def write_journal(registry: Path, line: str) -> None:
    """Replaces the registry's journal by a line."""
    temporary = registry / ".journal"
    temporary.write_text(f"{line}\n")
    temporary.rename(registry / store.JOURNAL)


def served(server: Server, path: str = "") -> int:
    """The version that answers, by its header and by what it predicts."""
    found = server.predict([ROW], path)
    version = int(found.headers["x-model-version"])
    assert found.json() == {"predictions": [[expected(version, ROW)]]}
    return version


class Load:
    """Clients that ask without a pause, each on its own connection."""

    def __init__(self, server: Server, clients: int) -> None:
        self.answers: list[tuple[int, Any]] = []
        self._server, self._over = server, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=60) as client:
            while not self._over.is_set():
                found = client.post(f"/v1/models/{MODEL}:predict", json={"instances": [ROW]})
                self.answers.append((found.status_code, found.json()))


def threads(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"Threads:\s+(\d+)", status)[0])


def test_under_load_no_request_fails(server: Server, registry: Path) -> None:
    moves: list[tuple[Callable[[], None], int]] = [
        (lambda: servers.promote(registry, 2), 2),
        (lambda: servers.roll_back(registry), 1),
        (lambda: servers.promote(registry, 3), 3),
        (lambda: servers.promote(registry, 2), 2),
        (lambda: servers.roll_back(registry), 3),
        (lambda: servers.promote(registry, 1), 1),
    ]
    with Load(server, 4) as load:
        until(lambda: len(load.answers) > 50)
        for round_ in range(2):
            for move, version in moves:
                move()
                until(lambda wanted=version: served(server) == wanted)
                assert server.metric("serving_label_version", label="champion") == version
            if round_ == 0:
                before = threads(server)
    asked = {json.dumps(answer) for answer in load.answers}
    assert asked == {
        json.dumps((200, {"predictions": [[expected(version, ROW)]]})) for version in (1, 2, 3)
    }
    assert threads(server) <= before + 1  # versions that are no longer served leave none behind


def test_labels_stay_loaded_so_that_a_rollback_is_instant(server: Server, registry: Path) -> None:
    servers.promote(registry, 2)
    until(lambda: served(server) == 2)
    assert served(server, "/labels/previous") == 1
    loaded = server.log().count("Loaded version")
    servers.roll_back(registry)
    until(lambda: served(server) == 1)
    assert server.log().count("Loaded version") == loaded


def test_a_label_of_ones_own_comes_and_goes(server: Server, registry: Path) -> None:
    assert server.predict([ROW], "/labels/trial").status_code == 404
    write_labels(registry, champion=1, trial=3)
    until(lambda: server.predict([ROW], "/labels/trial").status_code == 200)
    assert served(server, "/labels/trial") == 3
    assert until(lambda: server.metric("serving_label_version", label="trial")) == 3
    write_labels(registry, champion=1)
    until(lambda: server.predict([ROW], "/labels/trial").status_code == 404)
    until(lambda: server.metric("serving_label_version", label="trial") is None)
    assert served(server) == 1


def test_it_goes_on_with_what_it_has_when_a_version_is_damaged(
    server: Server, registry: Path
) -> None:
    write_labels(registry, champion=4)
    until(lambda: server.metric("serving_label_stale", label="champion") == 1)
    assert served(server) == 1
    assert server.client.get("/v2/health/ready").status_code == 200
    tried = server.log().count("Version 4 of shop-model cannot be loaded")
    for _ in range(5):
        assert server.predict([ROW], "/versions/4").status_code == 503
    # It is not tried for every request.
    assert server.log().count("Version 4 of shop-model cannot be loaded") <= tried + 1
    write_labels(registry, champion=3)
    until(lambda: served(server) == 3)
    until(lambda: server.metric("serving_label_stale", label="champion") == 0)


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": {}}', '{"labels": {"champion": "x"}}'])
def test_it_goes_on_with_what_it_has_when_the_labels_are_damaged(
    server: Server, registry: Path, text: str
) -> None:
    write_journal(registry, text)
    until(lambda: server.metric("serving_label_stale", label="champion") == 1)
    assert served(server) == 1
    write_labels(registry, champion=2)
    until(lambda: served(server) == 2)
    until(lambda: server.metric("serving_label_stale", label="champion") == 0)


class Following:
    """Versions that follow the labels in this process, and what was served while each loaded."""

    def __init__(self, registry: Path) -> None:
        self.versions = Versions(str(registry), "champion", self._load)
        self.loaded: dict[int, weakref.ref[Any]] = {}
        self.served_meanwhile: dict[int, dict[str, int]] = {}
        self._registry = registry
        self.versions.begin(self._load(1))

    def _load(self, number: int) -> ServedVersion:
        self.served_meanwhile[number] = dict(self.versions.serves)
        found = LoadedVersion(Chosen(str(self._registry), number))
        self.loaded[number] = weakref.ref(found._raw.graph)  # what refers to itself
        return ServedVersion(MODEL, found, Serving(), None)

    def run(self, *steps: tuple[dict[str, int], Callable[[], bool]]) -> None:
        """Writes labels, and waits for what should come of them, for each step."""

        async def follow() -> None:
            following = asyncio.create_task(self.versions.follow(0.01))
            for labels, happened in steps:
                write_labels(self._registry, **labels)
                while not happened():
                    await asyncio.sleep(0.01)
            following.cancel()

        asyncio.run(asyncio.wait_for(follow(), 30))


def test_the_champion_does_not_wait_for_other_labels(registry: Path) -> None:
    write_labels(registry, champion=1)
    following = Following(registry)
    labels = {"aa": 3, "champion": 2}
    following.run((labels, lambda: following.versions.serves == labels))
    assert following.served_meanwhile[2] == {"champion": 1}
    assert following.served_meanwhile[3] == {"champion": 2}


def test_a_rollback_does_not_wait_for_the_new_previous(registry: Path) -> None:
    write_labels(registry, champion=1)
    following = Following(registry)
    before, after = {"champion": 1, "previous": 2}, {"champion": 2, "previous": 3}
    following.run(
        (before, lambda: following.versions.serves == before),
        (after, lambda: following.versions.serves == after),
    )
    assert following.served_meanwhile[3]["champion"] == 2


def test_what_is_no_longer_served_is_freed(registry: Path) -> None:
    write_labels(registry, champion=1)
    following = Following(registry)
    gc.disable()  # so that only the server's own collecting counts
    try:
        following.run(({"champion": 2}, lambda: following.loaded[1]() is None))
    finally:
        gc.enable()
    assert following.loaded[2]() is not None
