"""A schedule: one recurring run of a name, whatever happened before."""

import re
from typing import Any

import pytest

from components.errors import PipelineStop
from tests.pipeline.kubeflow.submit.conftest import Run
from tests.pipeline.kubeflow.submit.fake_api import FakeApi, Fault

_NIGHTLY = {"schedule": "0 30 4 * * *", "run_name": "taxi nightly"}


def _ids(api: FakeApi) -> list[str]:
    return [one["recurring_run_id"] for one in api.recurring]


def test_it_is_made(run: Run, api: FakeApi, lines: list[str]) -> None:
    root = "minio://mlpipeline/mine"
    assert run(**_NIGHTLY, service_account="robot", pipeline_root=root) == 0
    (created,) = api.requests("POST .*/recurringruns$")
    body: dict[str, Any] = created.body
    assert re.fullmatch("Made by make submit; settings [0-9a-f]{12}", body.pop("description"))
    assert body == {
        "display_name": "taxi nightly",
        "experiment_id": api.experiments[0]["experiment_id"],
        "pipeline_version_reference": {
            "pipeline_id": api.pipelines[0]["pipeline_id"],
            "pipeline_version_id": api.versions[0]["pipeline_version_id"],
        },
        "runtime_config": {"parameters": {"data": "gs://here"}, "pipeline_root": root},
        "service_account": "robot",
        "mode": "DISABLE",
        "trigger": {"cron_schedule": {"cron": "0 30 4 * * *"}},
        "max_concurrency": "1",
        "no_catchup": True,
    }
    (found,) = _ids(api)
    assert api.firing == [0, 1]
    assert f"Recurring run taxi nightly, {found}: made" in lines
    assert f"  {api.host}/#/recurringrun/details/{found}" in lines
    assert re.fullmatch(r"  fires next at (\d{4}-\d\d-\d\d 04:30:00,? ){3}\(UTC, .*", lines[-1])
    assert not api.runs


def test_unchanged_it_stays(run: Run, api: FakeApi, lines: list[str]) -> None:
    run(**_NIGHTLY)
    (found,) = _ids(api)
    run(**_NIGHTLY)
    assert _ids(api) == [found]
    assert f"Recurring run taxi nightly, {found}: unchanged" in lines
    assert len(api.requests("POST .*/recurringruns")) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "0 0 5 * * *"},
        {"parameters": {"data": "gs://there"}},
        {"pipeline_root": "minio://other"},
        {"service_account": "other"},
        {"experiment": "other"},
    ],
)
def test_changed_it_is_replaced_and_two_never_fire(
    run: Run, api: FakeApi, lines: list[str], change: dict[str, Any]
) -> None:
    run(**_NIGHTLY)
    (old,) = _ids(api)
    run(**{**_NIGHTLY, **change})
    (new,) = _ids(api)
    assert f"Recurring run taxi nightly, {new}: made in place of {old}" in lines
    # Of the old one's workflows, one may be running.
    assert api.deleted == [(old, "ORPHAN")]
    assert api.firing == [0, 1, 1, 0, 1, 1]
    assert api.recurring[0]["status"] == "ENABLED"


def test_others_stay_and_all_of_its_name_go(run: Run, api: FakeApi) -> None:
    run(schedule="0 0 1 * * *", run_name="taxi nightly 2")
    (other,) = api.recurring
    for number in range(3):
        left = {"recurring_run_id": f"left-{number}", "display_name": "taxi nightly"}
        api.recurring.append({**other, **left, "status": "DISABLED" if number else "ENABLED"})
    run(**_NIGHTLY)
    assert sorted(one["display_name"] for one in api.recurring) == [
        "taxi nightly",
        "taxi nightly 2",
    ]
    assert [found for found, _ in api.deleted] == ["left-0", "left-1", "left-2"]


def test_one_that_was_paused_is_enabled(run: Run, api: FakeApi, lines: list[str]) -> None:
    run(**_NIGHTLY)
    (found,) = _ids(api)
    api.recurring[0]["status"] = "DISABLED"
    run(**_NIGHTLY)
    assert _ids(api) == [found]
    assert api.recurring[0]["status"] == "ENABLED"
    assert f"Recurring run taxi nightly, {found}: enabled" in lines


def test_if_the_new_one_is_refused_the_old_one_fires_on(run: Run, api: FakeApi) -> None:
    run(**_NIGHTLY)
    before = _ids(api)
    with pytest.raises(PipelineStop, match=r"refused to create the recurring run.*takes: data"):
        run(**_NIGHTLY, parameters={"data": "x", "spam": 1})
    assert _ids(api) == before
    assert api.recurring[0]["status"] == "ENABLED"


@pytest.mark.parametrize("step", [":disable", ":enable"])
@pytest.mark.parametrize("fault", [Fault(None), Fault(403, '{"message": "no"}')])
def test_an_exchange_that_breaks_off_is_undone(
    run: Run, api: FakeApi, step: str, fault: Fault
) -> None:
    run(**_NIGHTLY)
    before = _ids(api)
    api.fail(step, fault)
    with pytest.raises(PipelineStop, match=f"{step[1:]} the recurring run"):
        run(**{**_NIGHTLY, "schedule": "0 0 5 * * *"})
    assert _ids(api) == before
    assert api.recurring[0]["status"] == "ENABLED"
    assert max(api.firing) == 1


def test_an_exchange_that_can_not_be_undone_is_told_and_mended_by_the_next(
    run: Run, api: FakeApi
) -> None:
    run(**_NIGHTLY)
    api.fail(":enable", *[Fault(None)] * 2)
    api.fail("DELETE", Fault(None))
    changed = {**_NIGHTLY, "schedule": "0 0 5 * * *"}
    with pytest.raises(
        PipelineStop, match=r"'taxi nightly' may be off now: submit again.*#/recurr"
    ):
        run(**changed)
    api.faults.clear()
    assert run(**changed) == 0
    (one,) = api.recurring
    assert (one["status"], one["trigger"]["cron_schedule"]["cron"]) == ("ENABLED", "0 0 5 * * *")


def test_the_server_takes_five_fields_and_we_do_not(run: Run, api: FakeApi) -> None:
    with pytest.raises(PipelineStop, match=r"write '0 \*/30 \* \* \* \*'"):
        run(schedule="*/30 * * * *")
    assert not api.asked
