"""Inputs and outputs between the step's own disk and the workspace volume."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.kubeflow.step import paths
from pipeline.kubeflow.train_job import staging

_ROOT = "minio://bucket/taxi/run-1"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /minio, which only a container has."""
    monkeypatch.setitem(paths._FOLDERS, "minio://", f"{tmp_path}/minio/")
    examples = tmp_path / "minio" / "bucket" / "taxi" / "run-1" / "examples"
    examples.mkdir(parents=True)
    (examples / "rows").write_text("rows")
    return tmp_path / "minio"


def _executor_input(disk: Path) -> dict[str, Any]:
    def artifact(name: str) -> dict[str, Any]:
        return {"artifacts": [{"name": name, "uri": f"{_ROOT}/{name}"}]}

    return {
        "inputs": {
            "artifacts": {name: artifact(name) for name in ("examples", "hyperparameters")},
            "parameterValues": {"run_fn": "f"},
        },
        "outputs": {
            "artifacts": {n: artifact(n) for n in ("model", "model_run", "executor-logs")},
            "outputFile": f"{disk}/bucket/taxi/run-1/output_metadata.json",
        },
    }


def test_the_workers_get_plain_paths_and_the_launcher_its_uris(disk: Path, tmp_path: Path) -> None:
    given, folder = _executor_input(disk), tmp_path / "train-jobs" / "trainer-0"
    staging.stage(folder, {"component": "Trainer"}, given)
    staged = json.loads((folder / staging.INPUT).read_text())
    (examples,) = staged["inputs"]["artifacts"]["examples"]["artifacts"]
    assert Path(examples["uri"], "rows").read_text() == "rows"
    (absent,) = staged["inputs"]["artifacts"]["hyperparameters"]["artifacts"]
    assert not Path(absent["uri"]).exists()
    assert staged["inputs"]["parameterValues"] == {"run_fn": "f"}
    made = {}
    for name in ("model", "model_run"):
        (artifact,) = staged["outputs"]["artifacts"][name]["artifacts"]
        Path(artifact["uri"]).mkdir(parents=True)
        Path(artifact["uri"], "file").write_text(name)
        made[name] = {"artifacts": [artifact | {"metadata": {"worth": 1.0}}]}
    Path(staged["outputs"]["outputFile"]).write_text(json.dumps({"artifacts": made}))
    staging.fetch(folder, given)
    output = json.loads(Path(given["outputs"]["outputFile"]).read_text())
    for name in ("model", "model_run"):
        assert (disk / "bucket/taxi/run-1" / name / "file").read_text() == name
        (artifact,) = output["artifacts"][name]["artifacts"]
        assert artifact == {"name": name, "uri": f"{_ROOT}/{name}", "metadata": {"worth": 1.0}}
    assert given == _executor_input(disk)


def test_a_folder_is_there_whole_or_not_at_all(disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train-jobs" / "trainer-0"
    broken = _executor_input(disk)
    del broken["outputs"]["artifacts"]["model"]["artifacts"][0]["name"]
    broken["inputs"]["parameterValues"] = {"run_fn": object()}
    with pytest.raises(TypeError):
        staging.stage(folder, {}, broken)
    assert not folder.exists()
    staging.stage(folder, {}, _executor_input(disk))
    assert [path.name for path in folder.parent.iterdir()] == ["trainer-0"]
