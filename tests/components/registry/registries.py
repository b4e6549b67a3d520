"""Small registries for tests, and processes that work on them."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from components.registry import labels, store

ANN = labels.Mover("ann", "by hand")
SIGNATURE: dict[str, Any] = {
    "inputs": {"fare": {"type": "FLOAT", "required": False}},
    "ignored": [],
    "problem": "binary",
    "classes": None,
}
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__])


class Child:
    """A process of its own that has everything imported, and works once it is told to."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._connection, theirs = _SERVER.Pipe()
        self.process = _SERVER.Process(target=_wait, args=(theirs, work, *arguments))
        self.process.start()
        assert self._connection.recv() == "ready"

    def go(self) -> None:
        self._connection.send("go")

    def result(self) -> Any:
        """What the work returned."""
        made = self._connection.recv()
        self.process.join()
        return made

    def kill_after(self, seconds: float) -> None:
        self.process.join(seconds)
        self.process.kill()
        self.process.join()


def _wait(connection: Connection, work: Callable[..., Any], *arguments: Any) -> None:
    connection.send("ready")
    connection.recv()
    connection.send(work(*arguments))


def add(registry: str, model: str, fingerprint: str, **manifest: Any) -> int:
    """Files a model under a fingerprint."""
    filled = {"fingerprint": fingerprint, "signature": SIGNATURE, **manifest}
    return store.add_version(registry, model, filled)


def filled(registry: str, model: str, count: int = 3) -> str:
    """The registry, with so many versions."""
    for number in range(count):
        add(registry, model, "abcde"[number])
    return registry


def promote(registry: str, *versions: int) -> None:
    """Makes them champion, one after the other."""
    for version in versions:
        labels.promote(registry, version, ANN, over=store.read_labels(registry).get("champion"))


def move(registry: str, versions: list[int]) -> None:
    """Promotes them, though another process may be quicker."""
    for version in versions:
        try:
            promote(registry, version)
        except store.PipelineStop as stop:
            assert "by now the champion" in str(stop), stop


def move_and_die(registry: str, version: int) -> None:
    """Promotes a version, and is killed right after its line stands in the journal."""
    labels._write_copies = lambda folder: (
        os.kill(os.getpid(), signal.SIGKILL)
        if store.read_labels(folder)["champion"] == version
        else []
    )
    promote(registry, version)


def try_all(registry: str, model: str, limit: int | None) -> list[str]:
    """What each way of changing a registry says where files end at a size, or as a stranger."""
    os.chdir(os.path.dirname(registry))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    elif os.getuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    over = store.read_labels("taxi").get("champion")
    tries: list[Callable[[], Any]] = [
        lambda: labels.promote("taxi", 2, ANN, over),
        lambda: labels.rollback("taxi", ANN),
        lambda: labels.assign("taxi", "mine", 1, ANN),
        lambda: store.add_version("taxi", model, {"fingerprint": "new"}),
        lambda: store.remove_version("taxi", 3),
    ]
    return [_told(one) for one in tries]


def _told(change: Callable[[], Any]) -> str:
    try:
        return f"done: {change()}"
    except store.PipelineStop as stop:
        return str(stop)
