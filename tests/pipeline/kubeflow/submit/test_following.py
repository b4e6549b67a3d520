"""A run that is followed: its steps, its end, and what comes between."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.kubeflow.submit import Submission, submit
from tests.pipeline.kubeflow.submit.argo_rows import row, rows
from tests.pipeline.kubeflow.submit.conftest import TOKEN, Run
from tests.pipeline.kubeflow.submit.fake_api import HANGS, FakeApi, Fault, served

_TIMES = {"created_at": "2026-11-23T09:29:39Z", "finished_at": "2026-11-23T09:33:39Z"}


def _poll(state: str, **steps: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): progress for name, progress in steps.items()}
    return {"state": state, "run_details": {"task_details": rows(named)}, **_TIMES}


def _told(lines: list[str]) -> list[str]:
    """The lines about steps and all behind, blanks apart."""
    first = next(n for n, line in enumerate(lines) if line.startswith("  (where")) + 1
    return [" ".join(line.split()) for line in lines[first:]]


def test_each_step_has_a_line_as_it_starts_and_as_it_ends(
    run: Run, api: FakeApi, lines: list[str]
) -> None:
    api.progress = [
        {"state": "PENDING"},
        _poll("RUNNING"),
        _poll("RUNNING", example_gen="driver"),
        _poll("RUNNING", example_gen="driver"),
        _poll("RUNNING", example_gen="cached", trainer="driver"),
        _poll("RUNNING", example_gen="cached", trainer="running"),
        _poll("RUNNING", example_gen="cached", trainer="done", pusher="skipped"),
        _poll("SUCCEEDED", example_gen="cached", trainer="done", pusher="skipped"),
    ]
    assert run() == 0
    assert _told(lines) == [
        "example-gen started",
        "example-gen cached 11 s",
        "trainer started",
        "trainer done 52 s",
        "pusher skipped 11 s",
        "SUCCEEDED after 240 s (3 of 3 steps, 1 cached)",
    ]


def test_a_step_that_ran_beside_a_cached_one_was_not_cached(
    run: Run, api: FakeApi, lines: list[str]
) -> None:
    details = [
        row("example-gen", "SUCCEEDED", 10, 11),
        row("trainer", "SUCCEEDED", 10, 50),
        row("executor", "SKIPPED", 10, 10),
        row("executor", "SUCCEEDED", 10, 50),
        row("pusher", "SUCCEEDED", 60, 61),
    ]
    api.progress = [{"state": "SUCCEEDED", "run_details": {"task_details": details}}]
    run()
    assert _told(lines)[:3] == ["example-gen cached 1 s", "trainer done 40 s", "pusher done 1 s"]


def test_a_failed_run_says_which_step_and_where_its_log_is(
    run: Run, api: FakeApi, lines: list[str]
) -> None:
    api.progress = [
        _poll("RUNNING", example_gen="done", trainer="running"),
        _poll("FAILED", example_gen="done", trainer="failed", pusher="left out"),
    ]
    assert run(pipeline_root="minio://bucket/mine/") == 1
    (run_id,) = api.runs
    assert _told(lines)[2:] == [
        "trainer failed 52 s",
        "The reason is at the end of the log:",
        f"{api.host}/#/runs/details/{run_id} (the step, then Logs)",
        f"kubectl get pods -n kubeflow -l pipeline/runid={run_id} "
        "--field-selector=status.phase=Failed",
        "kubectl logs -n kubeflow POD -c main",
        f"minio://bucket/mine/taxi-automated/{run_id}/trainer/.../executor-logs",
        "FAILED in trainer after 240 s (2 of 3 steps, 0 cached)",
    ]


def test_a_pod_that_the_api_names_is_named(run: Run, api: FakeApi, lines: list[str]) -> None:
    api.multi_user = True
    details = [row("trainer", "FAILED", 10, 50) | {"pod_name": "taxi-x-impl-17"}]
    api.progress = [{"state": "FAILED", "run_details": {"task_details": details}}]
    assert run({"KFP_NAMESPACE": "ours"}) == 1
    assert "  kubectl logs -n ours taxi-x-impl-17 -c main" in lines
    assert not [line for line in lines if "get pods" in line]
    assert any("minio://mlpipeline/v2/artifacts/taxi-automated/" in line for line in lines)


@pytest.mark.parametrize(
    ("state", "steps", "last"),
    [
        ("FAILED", {"trainer": "driver failed"}, "FAILED in trainer"),
        (
            "FAILED",
            {"example_gen": "failed", "trainer": "failed"},
            "FAILED in example-gen, trainer",
        ),
        ("FAILED", {}, "FAILED after"),
        ("CANCELED", {"trainer": "running"}, "CANCELED after"),
        ("SKIPPED", {}, "SKIPPED after"),
    ],
)
def test_other_ends(
    run: Run, api: FakeApi, lines: list[str], state: str, steps: dict[str, str], last: str
) -> None:
    api.progress = [_poll(state, **steps)]
    assert run() == 1
    assert lines[-1].startswith(last)


def test_transient_errors_are_outlived(run: Run, api: FakeApi, lines: list[str]) -> None:
    api.fail("GET .*/runs/", *[Fault(status, "later") for status in (503, 502)], Fault(None))
    api.progress = [_poll("RUNNING", trainer="running"), _poll("SUCCEEDED", trainer="done")]
    assert run() == 0
    told = _told(lines)
    assert told[0] == (f"{api.host} could not follow the run (503: later). Asking again ...")
    assert told[1:3] == ["trainer started", "trainer done 52 s"]
    assert len(api.requests("GET .*/runs/")) == 5


def test_a_server_that_starts_anew_is_found_again(
    package: Path, lines: list[str], free_port: int
) -> None:
    """A real stop: the port is closed, then served again by another server."""
    api = FakeApi()
    api.progress = [_poll("RUNNING", trainer="running"), _poll("SUCCEEDED", trainer="done")]
    servers: list[Any] = []

    def serve() -> None:
        servers.append(served(api, port=free_port))
        servers[-1].__enter__()

    def show(line: str) -> None:
        lines.append(line)
        if line.split() == ["trainer", "started"]:
            servers[-1].__exit__(None, None, None)
        if line.endswith("Asking again ..."):
            serve()

    serve()
    request = Submission(
        package, "taxi", {"data": "x"}, "nightly", "now", None, None, None, 30.0, False, True
    )
    code = submit(request, {"KFP_HOST": f"http://127.0.0.1:{free_port}"}, show)
    servers[-1].__exit__(None, None, None)
    assert code == 0
    assert any("Connection refused). Asking again" in line for line in lines)
    assert _told(lines)[-2] == "trainer done 52 s"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(401, '{"message": "expired"}'), "wants to know who asks (401: expired)"),
        (Fault(403, '{"message": "no"}'), "doesn't let you follow the run (403: no)"),
        (Fault(404, '{"message": "Run not found"}'), "refused to follow the run (404: Run not"),
        (Fault(200, "<html>", "text/html"), "but not as the Kubeflow Pipelines API does"),
    ],
)
def test_contact_is_lost_for_good(
    run: Run, api: FakeApi, lines: list[str], fault: Fault, words: str
) -> None:
    api.progress = [_poll("RUNNING", trainer="running")]
    api.fail("GET .*/runs/", fault)
    assert run({"KFP_TOKEN": TOKEN}) == 3
    assert words in lines[-2]
    assert lines[-1].startswith("The run goes on. Follow it at ")
    assert len(api.requests("GET .*/runs/")) == 1


def test_a_run_that_never_ends(run: Run, api: FakeApi, lines: list[str]) -> None:
    api.progress = [_poll("RUNNING", trainer="running")]
    assert run(timeout_seconds=0.5) == 3
    (run_id,) = api.runs
    assert lines[-2] == "After 0.5 s the run is still RUNNING."
    assert lines[-1].endswith(f"POST {api.host}/apis/v2beta1/runs/{run_id}:terminate")
    assert not api.requests("terminate")


def test_nobody_answers_until_the_time_is_over(run: Run, api: FakeApi, lines: list[str]) -> None:
    api.fail("GET .*/runs/", *[Fault(503)] * 100)
    assert run(timeout_seconds=1.0) == 3
    assert "could not follow the run (503)" in lines[-2]
    assert len(api.requests("GET .*/runs/")) > 1


def test_an_answer_that_never_comes(run: Run, api: FakeApi, lines: list[str]) -> None:
    api.fail("GET .*/runs/", *[HANGS] * 10)
    assert run(timeout_seconds=1.0) == 3
    assert "can't be reached to follow the run (Read timed out." in lines[-2]


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C as in a terminal, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_following_and_not_the_run(
    package: Path, api: FakeApi, lines: list[str]
) -> None:
    api.progress = [_poll("RUNNING", trainer="running")]

    def show(line: str) -> None:
        lines.append(line)
        if line.split() == ["trainer", "started"]:
            os.kill(os.getpid(), signal.SIGINT)

    request = Submission(
        package, "taxi", {"data": "x"}, "nightly", "now", None, None, None, 30.0, False, True
    )
    assert submit(request, {"KFP_HOST": api.host}, show) == 130
    (run_id,) = api.runs
    assert lines[-1] == (
        f"No longer following. The run goes on. Follow it at {api.host}/#/runs/details/{run_id}; "
        f"terminate it there, or with POST {api.host}/apis/v2beta1/runs/{run_id}:terminate"
    )
    assert not api.requests("POST .*/runs/|DELETE")
