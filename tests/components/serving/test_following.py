"""The server follows the labels, and nobody who asks meanwhile notices."""

import asyncio
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.inference.model import Chosen, LoadedVersion
from components.registry import store
from components.serving.repository import Versions
from components.serving.served import ServedVersion
from components.serving.settings import Serving
from tests.components.serving import servers
from tests.components.serving.servers import MODEL, Server, expected, until

ROW = {"hour": 1}
CHAMPION = {"label": "champion"}


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


def test_under_load_no_request_fails_and_a_rollback_loads_nothing(
    server: Server, registry: Path
) -> None:
    over, asked = threading.Event(), set[str]()

    def ask(_: int) -> None:
        while not over.is_set():
            found = server.predict([ROW])
            asked.add(f"{found.status_code} {found.text}")

    with ThreadPoolExecutor(4) as pool:
        asking = pool.map(ask, range(4))
        for promoted in (2, 3):
            servers.promote(registry, promoted)
            until(lambda wanted=promoted: served(server) == wanted)
            assert server.metric("serving_label_version", **CHAMPION) == promoted
        loaded = server.log().count("Loaded version")
        servers.roll_back(registry)
        until(lambda: served(server) == 2)
        assert server.log().count("Loaded version") == loaded
        over.set()
        list(asking)
    answers = [json.dumps({"predictions": [[expected(n, ROW)]]}) for n in (1, 2, 3)]
    assert asked <= {f"200 {answer}".replace(": ", ":") for answer in answers}
    assert len(asked) == 3


def test_a_label_of_ones_own_comes_and_goes(server: Server, registry: Path) -> None:
    write_labels(registry, champion=1, trial=3)
    until(lambda: server.predict([ROW], "/labels/trial").status_code == 200)
    assert served(server, "/labels/trial") == 3
    assert until(lambda: server.metric("serving_label_version", label="trial")) == 3
    write_labels(registry, champion=1)
    until(lambda: server.predict([ROW], "/labels/trial").status_code == 404)
    assert served(server) == 1


def test_it_goes_on_with_what_it_has_when_something_is_damaged(
    server: Server, registry: Path
) -> None:
    write_labels(registry, champion=4)
    until(lambda: server.metric("serving_label_stale", **CHAMPION) == 1)
    assert served(server) == 1
    assert server.client.get("/v2/health/ready").status_code == 200
    tried = server.log().count("Version 4 of shop-model cannot be loaded")
    for _ in range(5):
        assert server.predict([ROW], "/versions/4").status_code == 503
    # It is not tried for every request.
    assert server.log().count("Version 4 of shop-model cannot be loaded") <= tried + 1
    for text in ("{", '{"labels": {"champion": "x"}}'):
        write_labels(registry, champion=1)
        until(lambda: server.metric("serving_label_stale", **CHAMPION) == 0)
        write_journal(registry, text)
        until(lambda: server.metric("serving_label_stale", **CHAMPION) == 1)
        assert served(server) == 1


def test_a_version_is_loaded_once_however_many_ask_first(registry: Path) -> None:
    write_labels(registry, champion=1)
    server = Server(registry, wanted="2")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: served(server, "/versions/3"), range(8))) == [3] * 8
    assert server.log().count("Loaded version 3 ") == 1
    # What was asked for at the start stays the default, whatever becomes champion.
    write_labels(registry, champion=3)
    until(lambda: server.metric("serving_label_version", **CHAMPION) == 3)
    assert served(server) == 2
    assert server.stop() == 0


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


def test_the_champion_waits_for_no_other_label_and_what_is_not_served_is_freed(
    registry: Path,
) -> None:
    write_labels(registry, champion=1)
    following = Following(registry)
    labels = {"aa": 3, "champion": 2}
    following.run(
        (labels, lambda: following.versions.serves == labels),
        (labels, lambda: following.loaded[1]() is None),
    )
    assert following.served_meanwhile[2] == {"champion": 1}
    assert following.served_meanwhile[3] == {"champion": 2}
    assert following.loaded[2]() is not None
