"""A run that starts from the champion's weights, through the whole pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.project import Project

pytestmark = pytest.mark.prove


def _training(project: Project) -> dict[str, Any]:
    root: Path = project.folder / "workspace" / "pipeline_root" / "small" / "Trainer" / "model"
    newest = max(root.iterdir(), key=lambda path: int(path.name))
    found: dict[str, Any] = json.loads((newest / "training.json").read_text())
    return found


def test_next_run_starts_from_the_champion(project: Project) -> None:
    first = _training(project)
    result = project.run(
        "--set=training.warm_start={version: champion, layers: [embedding_*, wide], freeze: true}"
    )
    assert result.code in (0, 3), result.output  # blessed or not
    second = _training(project)
    assert second["warm_start"] == 1
    assert second["fingerprint"] != first["fingerprint"]
    losses = [training["evaluations"][0]["loss"] for training in (first, second)]
    assert losses[1] != losses[0]


def test_version_that_is_not_there_starts_nothing(project: Project) -> None:
    result = project.run("--set=training.warm_start.version=9")
    assert result.code == 2
    assert "training.warm_start.version is 9" in result.output
    assert "Versions: 1" in result.output
    assert "ExampleGen" not in result.outcomes


def test_features_of_another_shape_are_refused_by_the_trainer(project: Project) -> None:
    result = project.run(
        "--set=training.warm_start.version=1", "--set=features.columns.shop.embed=3"
    )
    assert result.code == 1
    assert result.outcomes["Trainer"] == "failed"
    assert "The model cannot start from version 1" in result.output
    assert "embedding_shop/embeddings: its shape is (9, 2) there and (9, 3) here" in result.output
