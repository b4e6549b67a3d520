"""Runs that must not go through: bad data, a bad model, an interruption, two at once."""

import copy
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import small
from tests.end_to_end.project import Project, Result


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh project; its runs start from nothing."""
    return Project(tmp_path / "project")


def _edit(project: Project, change: Callable[[dict[str, object]], None]) -> None:
    rows = small.rows(1500)
    for row in rows:
        change(row)
    small.write_csv(project.folder / "data" / "rows.csv", rows)


def _assert_stopped(result: Result, component: str, *words: str) -> None:
    assert result.code == 1, result.output
    assert result.outcomes[component] == "failed", result.output
    for word in words:
        assert word in result.output
    assert "Traceback" not in result.output
    assert "log" in result.output.lower()


def test_new_category_is_stopped_at_the_gate(project: Project) -> None:
    _edit(project, lambda row: row.update(method="gold") if row["hour"] == 7 else None)
    result = project.run()
    count = sum(row["hour"] == 7 for row in small.rows(1500))
    _assert_stopped(result, "Gate", "method", "gold")
    assert "Transform" not in result.outcomes
    shown = [int(word) for word in result.output.replace(",", "").split() if word.isdigit()]
    assert count in shown or sum(n for n in shown if n < count) >= count


def test_unparsable_number_names_file_line_and_value(project: Project) -> None:
    path = project.folder / "data" / "rows.csv"
    lines = path.read_text().splitlines()
    lines[41] = lines[41].replace(lines[41].split(",")[1], "heavy", 1)
    path.write_text("\n".join(lines) + "\n")
    _assert_stopped(project.run(), "ExampleGen", "rows.csv", "42", "weight", "heavy")


def test_model_below_its_threshold_is_not_filed(project: Project) -> None:
    settings = copy.deepcopy(small.SETTINGS)
    settings["evaluation"]["thresholds"] = [{"metric": "auc", "at_least": 0.999}]
    small.write_config(project.folder / "configs", settings)
    result = project.run()
    assert result.code == 0, result.output
    assert "not blessed: auc of overall is" in result.output
    assert "No version was filed" in result.output
    assert project.versions() == []


def test_missing_data_and_wrong_settings_start_nothing(project: Project) -> None:
    shutil.rmtree(project.folder / "data")
    result = project.run("--set", "training.epoch=3")
    assert result.code == 2
    assert "did you mean 'epochs'?" in result.output
    assert not (project.folder / "workspace").exists()
    _assert_stopped(project.run(), "ExampleGen", "data", "does not exist")


def test_interrupted_run_goes_on_where_it_was(project: Project) -> None:
    process = project.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  StatisticsGen"):
            break
    os.kill(process.pid, signal.SIGINT)
    output = process.stdout.read()
    assert process.wait() == 75
    assert "Interrupted" in output
    again = project.run()
    assert again.code == 0, again.output
    assert again.outcomes["StatisticsGen"] == "cached"
    assert project.versions() == [1]


def test_two_runs_at_once_both_finish_and_file_one_version(project: Project) -> None:
    runs = [project.start() for _ in range(2)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert any("waiting for" in output for output in outputs)
    assert project.versions() == [1]
    with sqlite3.connect(project.folder / "workspace" / "metadata.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_killed_run_leaves_nothing_half_written(project: Project) -> None:
    process = project.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  Transform"):
            break
    process.kill()
    process.wait()
    again = project.run()
    assert again.code == 0, again.output
    assert again.outcomes["Transform"] == "cached"
    assert project.versions() == [1]
