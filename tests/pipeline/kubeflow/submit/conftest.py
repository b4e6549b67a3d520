"""A package, a server, and the lines that a person sees; no test may let a secret out."""

import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from pipeline.kubeflow.submit import Submission, submit
from tests.pipeline.kubeflow.submit.fake_api import FakeApi, served

TOKEN, COOKIE = "tkn-5e1f0c77d2", "ckv-91b3a2e8f4"
"""Every secret of these tests, but those in the answers of test_answers.py."""
STEPS = ("example-gen", "pusher", "trainer")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled by KFP: three steps, one of them in a condition, and three parameters."""

    @dsl.container_component
    def example_gen(span: int) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image="python", command=["true"], args=[span])

    @dsl.container_component
    def trainer(data: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image="python", command=["true"], args=[data])

    @dsl.container_component
    def pusher(data: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image="python", command=["true"], args=[data])

    @dsl.pipeline(name="taxi-automated")
    def taxi(data: str, span: int = 1, promote: bool = True) -> None:
        first = example_gen(span=span)
        second = trainer(data=data).after(first)
        with dsl.If(promote == True):  # noqa: E712 (KFP's own language)
            pusher(data=data).after(second)

    path = tmp_path_factory.mktemp("package") / "taxi.yaml"
    compiler.Compiler().compile(taxi, str(path))
    return path


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with served(FakeApi()) as made:
        yield made


@pytest.fixture
def lines() -> list[str]:
    return []


Run = Callable[..., int]


@pytest.fixture
def run(package: Path, api: FakeApi, lines: list[str]) -> Run:
    """Submits to `api` with some fields changed; `environment` adds to KFP_HOST."""

    def submitted(environment: Mapping[str, str] | None = None, **fields: Any) -> int:
        request = {
            "package": package,
            "pipeline": "taxi",
            "parameters": {"data": "gs://here"},
            "experiment": "nightly",
            "run_name": "taxi now",
            "service_account": None,
            "pipeline_root": None,
            "schedule": None,
            "timeout_seconds": 30.0,
            "dry_run": False,
            "follow": True,
        }
        given = {"KFP_HOST": api.host, **(environment or {})}
        return submit(Submission(**{**request, **fields}), given, lines.append)

    return submitted


@pytest.fixture(autouse=True)
def nothing_leaks(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, lines: list[str]
) -> Iterator[None]:
    """Nothing but the lines is written, and no secret anywhere, at the lowest level of logging."""
    caplog.set_level(logging.DEBUG)
    yield
    written = capfd.readouterr()
    assert (written.out, written.err) == ("", "")
    for text in (caplog.text, *lines):
        assert TOKEN not in text
        assert COOKIE not in text


@pytest.fixture
def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
