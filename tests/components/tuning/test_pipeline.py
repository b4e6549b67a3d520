"""The Tuner in the pipeline: real runs in fresh processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import small
from tests.end_to_end.project import Project

SEARCH = {
    "training.learning_rate.initial": {"min": 0.005, "max": 0.05, "log": True},
    "model.hidden": {"choices": [[8], [16, 4], [4]]},
}


pytestmark = pytest.mark.prove


def _best(project: Project) -> dict[str, Any]:
    outputs = project.folder / "workspace" / "pipeline_root" / "small" / "Tuner"
    (file,) = outputs.glob("tuner_results/*/tuner_results.json")
    trials = json.loads(Path(file).read_text())
    assert len(trials) == 3
    return min(trials, key=lambda trial: trial["score"])


def test_registry_records_the_winners_values_and_a_second_run_searches_nothing(
    tmp_path: Path,
) -> None:
    settings = small.SETTINGS | {"tuning": {"trials": 3, "search": SEARCH}}
    project = Project(tmp_path, settings)
    first = project.run()
    assert first.code == 0, first.output
    names = list(first.outcomes)
    assert names.index("Transform") < names.index("Tuner") < names.index("Trainer")
    best = _best(project)
    manifest = json.loads((project.registry / "1" / "manifest.json").read_text())
    found = manifest["hyperparameters"]
    assert found["training"]["learning_rate"]["initial"] == best["training.learning_rate.initial"]
    assert found["model"]["hidden"] == json.loads(best["model.hidden"])
    assert found["model"]["dropout"] == small.SETTINGS["model"]["dropout"]
    assert manifest["training"]["evaluations"][-1]["loss"] == best["score"]
    again = project.run()
    assert again.outcomes["Tuner"] == "cached"
    assert again.computed() == ["RegistryPush"]
