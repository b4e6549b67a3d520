"""Whole runs: the first, the same again, after changes, stopped, killed, interrupted, two at once.

Real runs in fresh processes. But for those that have to begin with nothing, each goes on from a
project that has run once.
"""

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
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


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A project that has never run."""
    return Project(tmp_path / "project")


def _edit(project: Project, change: Callable[[dict[str, object]], None]) -> None:
    rows = small.rows(1500)
    for row in rows:
        change(row)
    small.write_csv(project.folder / "data" / "rows.csv", rows)


def _assert_stopped(result: Result, component: str, *words: str, code: int = 1) -> None:
    assert result.code == code, result.output
    assert result.outcomes[component] == "failed", result.output
    for word in words:
        assert word in result.output
    assert "Traceback" not in result.output
    assert "log" in result.output.lower()


def test_the_first_run_files_version_1_as_champion(lived: tuple[Project, Result]) -> None:
    project, first = lived
    project.restore()
    assert list(first.outcomes) == ALL
    assert "version 1, now champion" in first.output
    assert len(first.output.splitlines()) <= 60
    manifest = project.manifest(1)
    assert manifest["baseline"] == {"kind": "heuristic", "version": None}
    assert manifest["metrics"]["candidate"]["overall"]["auc"] > 0.6
    for entry in ("config", "config_hash", "code", "data", "schema_hash", "transform_hash"):
        assert manifest[entry], entry
    for entry in ("hyperparameters", "metrics", "library_versions", "time", "run_id"):
        assert manifest[entry], entry
    assert manifest["data"][0]["input_fingerprint"]
    entries = {p.name for p in project.folder.iterdir()}
    assert entries == {"pipeline", "components", "configs", "data", "README.md", "workspace"}


def test_the_second_run_computes_nothing_and_files_nothing(project: Project) -> None:
    for file in ("README.md", "pipeline/telling.py"):  # words count for nothing
        path = project.folder / file
        path.write_text(path.read_text() + "\n# a remark\n")
    result = project.run()
    assert result.computed() == ["RegistryPush"]
    assert "is already version 1" in result.output


def test_changed_model_code_computes_from_the_trainer_on(project: Project) -> None:
    project.replace("components/trainer/core/model.py", '"relu"', '"gelu"')
    result = project.run()
    assert result.computed() == FROM_TRAINER
    newest = project.versions()[-1]
    if newest > 1:
        assert project.manifest(newest)["baseline"] == {"kind": "champion", "version": 1}


@pytest.mark.prove
def test_a_changed_embedding_leaves_transform_alone(project: Project) -> None:
    assert project.run("--set", "features.columns.shop.embed=3").computed() == FROM_TRAINER


@pytest.mark.prove
def test_a_lost_output_is_made_again(project: Project) -> None:
    shutil.rmtree(project.folder / "workspace" / "pipeline_root" / "small" / "Trainer")
    result = project.run()
    assert result.code == 0, result.output
    assert "Trainer" in result.computed()
    assert "StatisticsGen" not in result.computed()


@pytest.mark.prove
def test_another_way_to_run_beam_computes_nothing(project: Project) -> None:
    result = project.run("--set", "beam.mode=multi_threading", "--set", "beam.workers=2")
    assert result.computed() == ["RegistryPush"], result.output


def test_changed_data_computes_everything(project: Project) -> None:
    small.write_csv(project.folder / "data" / "rows.csv", small.rows(1600, seed=1))
    assert project.run().computed() == [name for name in ALL if name != "CuratedSchema"]


def test_a_new_category_is_stopped_at_the_gate(project: Project) -> None:
    _edit(project, lambda row: row.update(method="gold") if row["hour"] == 7 else None)
    result = project.run()
    _assert_stopped(result, "Gate", "method", "gold", code=4)
    assert "Transform" not in result.outcomes


def test_an_unparsable_number_names_file_line_and_value(project: Project) -> None:
    path = project.folder / "data" / "rows.csv"
    lines = path.read_text().splitlines()
    lines[41] = lines[41].replace(lines[41].split(",")[1], "heavy", 1)
    path.write_text("\n".join(lines) + "\n")
    _assert_stopped(project.run(), "ExampleGen", "rows.csv", "42", "weight", "heavy")


def test_a_changed_feature_computes_from_transform_on_and_a_bad_model_is_not_filed(
    project: Project,
) -> None:
    limit = "--set=evaluation.thresholds=[{metric: auc, at_least: 0.999}]"
    result = project.run("--set=features.columns.shop.buckets=9", limit)
    assert result.computed() == FROM_TRANSFORM
    assert "not blessed: auc of overall is" in result.output
    assert "No version was filed" in result.output
    assert 'SET="training.epochs=' in result.output.partition("Next:")[2]
    assert result.code == 3
    assert project.versions() == [1]


def test_missing_data_and_wrong_settings_start_nothing(fresh: Project) -> None:
    shutil.rmtree(fresh.folder / "data")
    result = fresh.run("--set", "training.epoch=3")
    assert result.code == 2
    assert "did you mean 'epochs'?" in result.output
    assert not (fresh.folder / "workspace").exists()
    _assert_stopped(fresh.run(), "ExampleGen", "data", "does not exist")


def test_an_interrupted_run_goes_on_where_it_was(fresh: Project) -> None:
    process = fresh.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  StatisticsGen"):
            break
    os.kill(process.pid, signal.SIGINT)
    output = process.stdout.read()
    assert process.wait() == 75
    assert "Interrupted" in output
    again = fresh.run()
    assert again.code == 0, again.output
    assert again.outcomes["StatisticsGen"] == "cached"
    assert fresh.versions() == [1]


@pytest.mark.prove
def test_a_killed_run_leaves_nothing_half_written(fresh: Project) -> None:
    process = fresh.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  Transform"):
            break
    process.kill()
    process.wait()
    again = fresh.run()
    assert again.code == 0, again.output
    assert again.outcomes["Transform"] == "cached"
    assert fresh.versions() == [1]


@pytest.mark.prove
def test_two_runs_at_once_both_finish_and_file_one_version(fresh: Project) -> None:
    runs = [fresh.start() for _ in range(2)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert any("waiting for" in output for output in outputs)
    assert fresh.versions() == [1]
    with sqlite3.connect(fresh.folder / "workspace" / "metadata.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
