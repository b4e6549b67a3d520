"""The example's Feast repository, real and without a network, and a model of its features."""

import functools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from components.feature_store.settings import FeatureStore
from components.feature_store.store import Service

try:
    import feast  # noqa: F401
except ImportError:
    collect_ignore_glob = ["test_*"]


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    """Whatever is sent elsewhere fails, and is told of at the end: libraries hide such failures."""
    tried, real = [], socket.socket.connect

    @functools.wraps(real)
    def connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            tried.append(address)
            raise OSError(f"no network for {address}")
        real(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        yield
    assert not tried


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the example's repository (`repo`) and its rows (`rows`)."""
    from components.feature_store import example

    folder = tmp_path_factory.mktemp("workspace")
    for name, fill in (("repo", example.repository), ("rows", example.questions)):
        (folder / name).mkdir()
        fill(folder / name)
    return folder


@pytest.fixture
def config(example: Path, tmp_path: Path) -> Callable[..., Any]:
    """Makes what the part reads of a configuration."""

    def make(pattern: str = "*.parquet", **settings: str) -> Any:
        given = {"repo": str(example / "repo"), "service": "storm_now", "time": "asked", **settings}
        return SimpleNamespace(
            name="storms",
            workspace=str(tmp_path / "workspace"),
            data=SimpleNamespace(pattern=pattern),
            part=lambda _: FeatureStore(**given),
        )

    return make


@pytest.fixture
def service(config: Callable[..., Any]) -> Service:
    return Service(config())


@pytest.fixture(scope="session")
def measurements(example: Path) -> pd.DataFrame:
    """What the offline store has."""
    return pd.read_parquet(example / "repo" / "data" / "measurements.parquet")
