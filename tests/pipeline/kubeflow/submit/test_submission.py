"""What is sent, in which order, and what is sent only once."""

import re
from pathlib import Path

import pytest
import yaml

from components.errors import PipelineStop
from tests.pipeline.kubeflow.submit.conftest import TOKEN, Run
from tests.pipeline.kubeflow.submit.fake_api import FakeApi


def test_a_run_is_created_with_everything_that_was_asked_for(run: Run, api: FakeApi) -> None:
    parameters = {"data": "gs://there", "span": 3, "promote": False}
    code = run(
        parameters=parameters, service_account="trainer", pipeline_root="minio://mlpipeline/mine"
    )
    assert code == 0
    (created,) = api.requests("POST .*/runs$")
    (version,) = api.versions
    assert created.body == {
        "display_name": "taxi now",
        "experiment_id": api.experiments[0]["experiment_id"],
        "pipeline_version_reference": {
            "pipeline_id": api.pipelines[0]["pipeline_id"],
            "pipeline_version_id": version["pipeline_version_id"],
        },
        "runtime_config": {"parameters": parameters, "pipeline_root": "minio://mlpipeline/mine"},
        "service_account": "trainer",
    }
    assert api.experiments[0]["display_name"] == "nightly"


def test_what_was_not_asked_for_is_not_sent(run: Run, api: FakeApi) -> None:
    run()
    (created,) = api.requests("POST .*/runs$")
    assert created.body["runtime_config"] == {"parameters": {"data": "gs://here"}}
    assert "service_account" not in created.body
    assert "namespace" not in api.requests("POST .*/experiments$")[0].body


def test_the_package_is_uploaded_once_for_each_content(
    run: Run, api: FakeApi, package: Path, tmp_path: Path, lines: list[str]
) -> None:
    for _ in range(2):
        run()
    (name,) = [one["name"] for one in api.versions]
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{12}", name)
    (upload,) = api.requests("upload_version")
    assert upload.body == ("taxi.yaml", package.read_bytes())
    assert f"Pipeline taxi, version {name} (uploaded)" in lines
    assert f"Pipeline taxi, version {name} (there already)" in lines

    other = tmp_path / "other.yaml"
    other.write_text(package.read_text() + "# changed\n")
    run(package=other)
    assert len(api.versions) == 2
    assert len(api.pipelines) == len(api.experiments) == 1
    assert (
        len({one["pipeline_version_reference"]["pipeline_version_id"] for one in api.runs.values()})
        == 2
    )


def test_names_are_found_on_later_pages_and_only_whole(run: Run, api: FakeApi) -> None:
    for name in ("taxi-old", "taxi-older", "Taxi"):
        api.pipelines.append({"pipeline_id": name, "name": name, "display_name": name})
    run()
    wanted = api.pipelines[-1]["pipeline_id"]
    known = dict(api.versions[0])
    for number in range(4):
        name = f"{known['name']}-{number}"
        other = {**known, "name": name, "pipeline_version_id": name}
        api.versions.insert(0, other)
    run()
    assert len(api.requests("upload_version")) == 1
    references = [one["pipeline_version_reference"] for one in api.runs.values()]
    assert references == 2 * [
        {"pipeline_id": wanted, "pipeline_version_id": known["pipeline_version_id"]}
    ]


def test_a_run_that_is_not_followed_has_its_address(
    run: Run, api: FakeApi, lines: list[str]
) -> None:
    api.progress = [{"state": "RUNNING"}]
    assert run(follow=False) == 0
    (run_id,) = api.runs
    assert f"Run taxi now: {api.host}/#/runs/details/{run_id}" in lines
    assert any(f" /#/runs/details/{run_id} there" in line for line in lines)
    assert not api.requests("GET .*/runs/")


def test_several_users(run: Run, api: FakeApi) -> None:
    api.multi_user = True
    with pytest.raises(PipelineStop, match="set KFP_NAMESPACE to your namespace"):
        run()
    with pytest.raises(PipelineStop, match=r"let you look up the pipeline \(403: User 'ann'.*KFP_"):
        run({"KFP_NAMESPACE": "theirs"})
    assert not api.requests("POST")
    assert run({"KFP_NAMESPACE": "ours"}) == 0
    assert api.requests("POST .*/experiments$")[0].body["namespace"] == "ours"
    assert api.requests("POST .*/pipelines$")[0].body["namespace"] == "ours"


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(
    run: Run, api: FakeApi, package: Path, lines: list[str]
) -> None:
    code = run(
        {"KFP_TOKEN": TOKEN, "KFP_NAMESPACE": "ours"},
        dry_run=True,
        schedule="0 0 4 * * mon",
        pipeline_root="minio://b/r",
        service_account="robot",
        parameters={"data": "x", "span": 2},
    )
    assert code == 0
    assert not api.asked
    shown = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    digest = re.search(r"ends in (\w{12}) is there", shown["Version"])
    assert digest
    assert re.match(rf"\d{{8}}-\d{{6}}-{digest[1]},", shown["Version"])
    assert shown | {"Version": ""} == shown | {
        "Version": "",
        "Host": api.host,
        "Credentials": "a token",
        "Namespace": "ours",
        "Pipeline": "taxi",
        "Package": f"{package} (3 steps)",
        "Experiment": "nightly",
        "Recurring run": "taxi now",
        "Parameters": '{"data": "x", "span": 2}',
        "Pipeline root": "minio://b/r",
        "Service account": "robot",
        "Schedule": "0 0 4 * * mon",
    }
    assert lines[-1] == "Nothing was sent: this is a dry run."


def test_all_mistakes_are_told_at_once(run: Run, api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(PipelineStop) as caught:
        run(
            {"KFP_HOST": "kubeflow:8888", "KFP_VERIFY_SSL": "maybe"},
            package=tmp_path / "missing.yaml",
            schedule="*/30 * * * *",
            parameters={"data": tmp_path, "span": float("nan")},
        )
    text = str(caught.value)
    assert "6 reasons" in text
    for part in (
        "missing.yaml (No such file or directory): make it with 'make compile'",
        "write '0 */30 * * * *'",
        "KFP_HOST is 'kubeflow:8888': it begins with http:// or https://",
        "KFP_VERIFY_SSL is 'maybe'",
        "'data' is PosixPath",
        "'span' is nan (float)",
    ):
        assert part in text
    assert not api.asked


@pytest.mark.parametrize("content", ["", "a: [", "just words", "root: {}", "- 1", "root: {dag: 1}"])
def test_a_file_that_is_no_package(run: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "package.yaml"
    path.write_text(content)
    with pytest.raises(
        PipelineStop, match=r"package.yaml is not a compiled pipeline.*make compile"
    ):
        run(package=path)


def test_a_refused_package_can_be_submitted_after_it_was_mended(
    run: Run, api: FakeApi, package: Path, tmp_path: Path
) -> None:
    path = tmp_path / "package.yaml"
    spec = yaml.safe_load(package.read_text())
    path.write_text(yaml.safe_dump({**spec, "schemaVersion": "2.0.0"}))
    with pytest.raises(PipelineStop, match=r"only supports schema version 2\.1\.0, but .* 2\.0\.0"):
        run(package=path)
    path.write_text(yaml.safe_dump(spec))
    assert run(package=path) == 0
    assert len(api.pipelines) == len(api.versions) == 1
