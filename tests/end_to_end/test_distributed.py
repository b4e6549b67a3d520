"""The whole pipeline, trained by several workers."""

import json
from pathlib import Path

import pytest

from components.multi_worker.run import loopback
from tests.end_to_end.project import Project


@pytest.mark.prove
def test_two_workers_train_a_version(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    done = project.run("--set", "training.strategy=multi_worker", "--set", "training.workers=2")
    assert done.code == 0, done.output
    assert project.versions() == [1]
    training = json.loads((project.registry / "1" / "manifest.json").read_text())["training"]
    assert training["replicas"] == 2
    assert training["steps"] > 0
    assert not list((project.folder / "workspace" / "checkpoints").glob("*/step-*"))


@pytest.mark.prove
def test_the_same_command_in_two_places_trains_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "project")
    for attempt in ("trained", "cached"):
        processes = []
        for place in loopback(2):
            monkeypatch.setenv("TF_CONFIG", place)
            processes.append(project.start("--set", "training.strategy=multi_worker"))
        chief, member = (process.communicate(timeout=300)[0] for process in processes)
        assert [process.returncode for process in processes] == [0, 0], chief + member
        assert "Trainer            " + ("done" if attempt == "trained" else "cached") in chief
        assert "waiting for the chief at 127.0.0.1" in member
        assert ("the training is done" in member) == (attempt == "trained")
    assert project.versions() == [1]
