"""A decision's training run: one, whatever happens to the request for it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import PipelineStop
from pipeline import loading
from pipeline.kubeflow import compiling, retraining
from tests.pipeline.kubeflow.submit.conftest import TOKEN
from tests.pipeline.kubeflow.submit.fake_api import CUT, FakeApi, Fault, served

NAME = "span-17-v3-1a2b3c4d"
WANTED = {
    "spans": {"count": 4, "start": 1, "last": 17},
    "warm_start": 3,
    "data_path": "/mnt/data",
}
RUNS = "POST .*/runs$"


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    """The real training package."""
    target = compiling.load_target("kubeflow")
    return compiling.training(loading.load("automated"), target).spec


@pytest.fixture
def api(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """An installation that has two versions of the training pipeline, and a pod's environment."""
    with served(FakeApi()) as made:
        add(made, "taxi-automated", "new", spec)
        monkeypatch.setenv("KFP_HOST", made.host)
        yield made


def add(api: FakeApi, pipeline: str, version: str, spec: dict[str, Any]) -> None:
    """A pipeline with this version, one older and one much older."""
    api.pipelines.append({"pipeline_id": pipeline, "name": pipeline, "display_name": pipeline})
    for name, day in (("older", 2), (version, 3), ("oldest", 1)):
        made = {"pipeline_id": pipeline, "pipeline_version_id": f"{pipeline}-{name}"}
        time = f"2026-11-0{day}T00:00:00Z"
        api.versions.append({**made, "name": name, "display_name": name, "created_at": time})
        api.specs[f"{pipeline}-{name}"] = spec


def start(patience: float = 20.0, **changes: Any) -> str:
    """As the deciding step does."""
    target = compiling.load_target("kubeflow")
    known = json.loads(retraining.described(loading.load("automated"), target))
    assert known["function"] == "pipeline.kubeflow.retraining:start"
    return retraining.start(NAME, {**WANTED, **changes}, **known["arguments"], patience=patience)


def test_the_newest_version_runs_on_the_window_that_was_decided_on(api: FakeApi) -> None:
    run_id = start()
    (created,) = api.requests(RUNS)
    assert [*api.runs] == [run_id]
    assert created.body["display_name"] == NAME
    assert created.body["pipeline_version_reference"]["pipeline_version_id"] == "taxi-automated-new"
    sent = created.body["runtime_config"]
    assert sent["pipeline_root"] == "minio://mlpipeline/v2/artifacts"
    assert json.loads(sent["parameters"].pop("span")) == WANTED["spans"]
    assert sent["parameters"] == {
        "data_path": "/mnt/data",
        "data_fingerprint": NAME,
        "test_spans": "newest",
        "warm_start": "3",
    }
    (experiment,) = api.experiments
    assert experiment["display_name"] == "taxi"


def test_without_spans_and_from_the_beginning(api: FakeApi) -> None:
    start(spans=None, warm_start=None)
    (created,) = api.requests(RUNS)
    assert created.body["runtime_config"]["parameters"].keys() == {"data_path", "data_fingerprint"}


@pytest.mark.parametrize("state", ["RUNNING", "SUCCEEDED", "FAILED"])
def test_once_for_each_decision_whatever_became_of_the_run(api: FakeApi, state: str) -> None:
    first = start()
    api.runs[first] |= {"state": state, "storage_state": "ARCHIVED"}
    assert start() == first
    assert len(api.requests(RUNS)) == 1


def test_a_run_of_that_name_of_another_pipeline_is_another_one(
    api: FakeApi, spec: dict[str, Any]
) -> None:
    add(api, "tips", "new", spec)
    theirs = retraining.start(
        NAME, WANTED, pipeline="tips", experiment="x", service_account=None, pipeline_root=None
    )
    api.runs["another"] = {"run_id": "another", "display_name": NAME}  # a package never uploaded
    assert start() not in (theirs, "another")
    assert len(api.runs) == 3


def test_an_answer_that_is_lost_starts_no_second_run(api: FakeApi) -> None:
    api.fail(RUNS, CUT)
    (run_id,) = [start()]
    assert [*api.runs] == [run_id]
    assert len(api.requests(RUNS)) == 1


def test_a_server_that_is_busy_is_asked_again(api: FakeApi) -> None:
    api.fail("GET .*/pipelines$", Fault(503), Fault(None))
    start()
    assert len(api.runs) == 1


def test_a_server_that_cannot_be_reached(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_HOST", f"http://127.0.0.1:{free_port}")
    with pytest.raises(PipelineStop) as caught:
        start(patience=0.5)
    text = str(caught.value)
    assert text.startswith(f"The retraining {NAME} was not started. http://127.0.0.1:{free_port} ")
    assert "can't be reached to ask how it is" in text
    assert "The decision is filed" in text


def test_a_pipeline_that_was_never_uploaded(api: FakeApi) -> None:
    api.pipelines.clear()
    with pytest.raises(PipelineStop, match=r"has no pipeline 'taxi-automated': upload it"):
        start()
    assert not api.requests("POST")


def test_a_package_from_before_is_refused_at_once(api: FakeApi, spec: dict[str, Any]) -> None:
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    older = {name: each for name, each in inputs.items() if name != "warm_start"}
    api.specs["taxi-automated-new"] = {"root": {"inputDefinitions": {"parameters": older}}}
    with pytest.raises(PipelineStop, match=r"not required by pipeline: warm_start.*The decision"):
        start()
    assert len(api.requests(RUNS)) == 1


def test_in_an_installation_for_several_users(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod's token is read where Kubeflow mounts it, and its namespace is given."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    api.multi_user, api.token = True, TOKEN
    monkeypatch.setenv("KFP_TOKEN_FILE", str(token))
    with pytest.raises(PipelineStop, match="set KFP_NAMESPACE"):
        start()
    monkeypatch.setenv("KFP_NAMESPACE", "ours")
    start()
    assert {one.query.get("namespace") for one in api.requests("GET .*/runs$")} == {"ours"}
    assert api.experiments[0]["namespace"] == "ours"
