"""`submit` with another pipeline than training's, and what a parameter does to the package."""

from collections.abc import Iterator
from typing import Any

import pytest

from components.errors import PipelineStop
from pipeline.kubeflow import compiling, submitting
from tests.pipeline.kubeflow.submit.fake_api import FakeApi, served


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with served(FakeApi()) as made:
        monkeypatch.setenv("KFP_HOST", made.host)
        yield made


def submit(*values: str, which: submitting.Which = "training", schedule: str | None = None) -> int:
    wish = submitting.Wish(
        config="automated",
        overrides=[],
        which=which,
        values=[*values],
        schedule=schedule,
        run_name=None,
        experiment=None,
        timeout_seconds=30.0,
        follow=False,
        dry_run=False,
    )
    return submitting.main(wish, compiling.load_target("kubeflow"), lambda line: None)


def spec_of(api: FakeApi, run: dict[str, Any]) -> dict[str, Any]:
    return api.specs[run["pipeline_version_reference"]["pipeline_version_id"]]


def test_continued_evaluation_on_a_schedule(api: FakeApi) -> None:
    assert submit(which="continued-evaluation", schedule="0 0 6 * * *") == 0
    (recurring,) = api.recurring
    assert recurring["display_name"] == "taxi-automated-continued-evaluation"
    assert recurring["trigger"]["cron_schedule"]["cron"] == "0 0 6 * * *"
    assert recurring["runtime_config"].get("parameters", {}) == {}
    assert "decide" in spec_of(api, recurring)["root"]["dag"]["tasks"]


def test_continued_evaluation_of_a_span(api: FakeApi) -> None:
    submit("span=17", "data_path=/mnt/data", which="continued-evaluation")
    (run,) = api.runs.values()
    assert run["runtime_config"]["parameters"] == {"span": "17", "data_path": "/mnt/data"}
    with pytest.raises(PipelineStop, match="judges one span"):
        submit("span={count: 4}", which="continued-evaluation")
    assert len(api.runs) == 1


def test_numbers_are_numbers_and_texts_texts(api: FakeApi) -> None:
    submit("span={count: 4, last: 17}", "steps=500", "warm_start=3", "data_fingerprint=2026-11-20")
    (run,) = api.runs.values()
    assert run["runtime_config"]["parameters"] == {
        "span": "{count: 4, last: 17}",
        "steps": 500,
        "warm_start": "3",
        "data_fingerprint": "2026-11-20",
    }
    caching = spec_of(api, run)["root"]["dag"]["tasks"]["trainer"]["cachingOptions"]
    assert caching == {"enableCache": True}


def test_a_trainer_that_starts_from_a_label_is_not_cached(api: FakeApi) -> None:
    submit("warm_start=champion", "data_fingerprint=1")
    (run,) = api.runs.values()
    tasks = spec_of(api, run)["root"]["dag"]["tasks"]
    assert tasks["trainer"]["cachingOptions"] == {}
    assert tasks["example-gen"]["cachingOptions"] == {"enableCache": True}
