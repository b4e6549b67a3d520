"""What is computed again after which change: real runs in fresh processes, one after the other."""

import json
from pathlib import Path

import pytest

from tests import small
from tests.end_to_end.project import Project, Result

ALL = [
    "CuratedSchema",
    "ExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "Gate",
    "Transform",
    "Trainer",
    "BaselineLookup",
    "Evaluator",
    "RegistryPush",
]
FROM_TRAINER = ["Trainer", "BaselineLookup", "Evaluator", "RegistryPush"]
FROM_TRANSFORM = ["Transform", *FROM_TRAINER]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def first(project: Project) -> Result:
    return project.run()


@pytest.fixture(scope="module", autouse=True)
def second(project: Project, first: Result) -> Result:
    """The other tests change one thing each after these two runs."""
    return project.run()


def test_first_run_files_version_1_as_champion(project: Project, first: Result) -> None:
    assert first.code == 0, first.output
    assert list(first.outcomes) == ALL
    assert "version 1, now champion" in first.output
    manifest = json.loads((project.registry / "1" / "manifest.json").read_text())
    assert manifest["baseline"] == {"kind": "heuristic", "version": None}
    assert manifest["metrics"]["candidate"]["overall"]["auc"] > 0.6
    assert (project.registry / "1" / "saved_model.pb").is_file()


def test_first_run_prints_little_when_piped(first: Result) -> None:
    assert len(first.output.splitlines()) <= 60


def test_second_run_computes_nothing_and_files_nothing(project: Project, second: Result) -> None:
    assert second.computed() == ["RegistryPush"]
    assert "is already version 1" in second.output


@pytest.mark.parametrize("file", ["README.md", "pipeline/summary.py", "pipeline/console.py"])
def test_changed_words_compute_nothing(project: Project, file: str) -> None:
    path = project.folder / file
    path.write_text(path.read_text() + "\n# a remark\n")
    assert project.run().computed() == ["RegistryPush"]


def test_changed_model_code_computes_from_the_trainer_on(project: Project) -> None:
    project.replace("components/trainer/core/model.py", '"relu"', '"gelu"')
    result = project.run()
    assert result.computed() == FROM_TRAINER
    newest = project.versions()[-1]
    if newest > 1:
        manifest = json.loads((project.registry / str(newest) / "manifest.json").read_text())
        assert manifest["baseline"] == {"kind": "champion", "version": 1}


def test_changed_embedding_leaves_transform_alone(project: Project) -> None:
    assert project.run("--set", "features.columns.shop.embed=3").computed() == FROM_TRAINER


def test_changed_feature_computes_from_transform_on(project: Project) -> None:
    result = project.run("--set", "features.columns.shop.buckets=9")
    assert result.computed() == FROM_TRANSFORM


def test_lost_output_is_made_again(project: Project) -> None:
    import shutil

    project.run()
    shutil.rmtree(project.folder / "workspace" / "pipeline_root" / "small" / "Trainer")
    result = project.run()
    assert result.code == 0, result.output
    assert "Trainer" in result.computed()
    assert "StatisticsGen" not in result.computed()


def test_changed_data_computes_everything(project: Project) -> None:
    small.write_csv(project.folder / "data" / "rows.csv", small.rows(1600, seed=1))
    result = project.run()
    assert result.computed() == [name for name in ALL if name != "CuratedSchema"]


def test_metadata_and_outputs_stay_in_the_workspace(project: Project) -> None:
    entries = {p.name for p in project.folder.iterdir()}
    assert entries == {"pipeline", "components", "configs", "data", "README.md", "workspace"}
    assert (project.folder / "workspace" / "metadata.db").is_file()
    assert not Path("workspace/registry/small").exists()
