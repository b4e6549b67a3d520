"""What the walks share: the image's environment, packages, and what a run left in the registry."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipeline import loading
from pipeline.kubeflow import compiling
from pipeline.kubeflow.settings import Target
from tests import small
from tests.end_to_end.project import Project
from tests.kubeflow.imitation.run import Backend, Run

Json = dict[str, Any]

STEPS = [
    *("curated-schema", "example-gen", "statistics-gen", "example-validator", "gate", "transform"),
    *("trainer", "baseline-lookup", "evaluator", "registry-push"),
]


def image_environment() -> dict[str, str]:
    """The image's `ENV`, without the paths, which are this machine's."""
    [line] = re.findall(r"^ENV (.*)$", (loading.PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    found = dict(each.split("=", 1) for each in line.split())
    return {k: v for k, v in found.items() if k != "PATH"} | {"PYTHONPATH": str(loading.PROJECT)}


def settings(**changes: Any) -> Target:
    """The project's own settings for Kubeflow, with changes."""
    found = compiling.load_target("kubeflow").model_dump()
    return Target.model_validate(found | changes)


def write_package(folder: Path, *overrides: str, config: str = "automated", **changes: Any) -> Path:
    """Compiles the training pipeline as `make submit` does, checked."""
    target = settings(**changes)
    made = compiling.training(loading.load(config, overrides), target, ingest_cached=True)
    compiling.check([made], "kubeflow")
    return compiling.write_package(made, target, "kubeflow", folder).path


def states(run: Run) -> dict[str, str]:
    """The state of each task."""
    return {name: task.state for name, task in run.tasks.items()}


def last_line(run: Run, task: str) -> str:
    """The last line that a step printed, before what the launcher says of its end."""
    lines = [line for line in run.tasks[task].log.splitlines() if line.strip()]
    return next(line for line in reversed(lines) if not line.startswith("launcher: "))


def manifest(registry: Path, version: int) -> dict[str, Any]:
    """What a version's manifest says."""
    found: dict[str, Any] = json.loads((registry / str(version) / "manifest.json").read_text())
    return found


def training(backend: Backend, run: Run) -> dict[str, Any]:
    """What the Trainer recorded."""
    found: dict[str, Any] = json.loads(
        (output(backend, run, "trainer", "model") / "training.json").read_text()
    )
    return found


def versions(registry: Path) -> list[int]:
    """The versions filed."""
    return sorted(int(path.name) for path in registry.glob("[0-9]*"))


def labels(registry: Path) -> dict[str, int]:
    """Where the labels are."""
    found: dict[str, int] = json.loads((registry / "labels.json").read_text())["labels"]
    return found


def output(backend: Backend, run: Run, task: str, name: str) -> Path:
    """The folder of an output in the object store."""
    return backend.objects(run.tasks[task].outputs[name].uri)


class SmallProject(Project):
    """A copy of the project with the small data, to be compiled for Kubeflow."""

    def __init__(self, folder: Path, settings: Json | None = None, steps: Json | None = None):
        """Copies, and takes the data in spans from a volume.

        Args:
            folder: for the copy.
            settings: changes of the small settings.
            steps: more settings of the cluster's, by component.
        """
        data = small.SETTINGS["data"] | {"pattern": "span-{SPAN}/*.csv"}
        super().__init__(folder, small.SETTINGS | {"data": data} | (settings or {}))
        cluster = yaml.safe_load((loading.CONFIGS / "kubeflow.yaml").read_text())
        cluster["steps"] |= steps or {}
        cluster["steps"]["ExampleGen"] = {"volumes": [{"claim": "data", "path": "/mnt/data"}]}
        (folder / "configs" / "kubeflow.yaml").write_text(yaml.safe_dump(cluster))

    def compile(self) -> Path:
        """The training package, by the command; the others lie beside it."""
        command = [sys.executable, "-m", "pipeline", "compile", "--config", "small"]
        environment = small.environment_of_a_copy()
        subprocess.run(command, cwd=self.folder, env=environment, check=True, capture_output=True)
        return self.folder / "build" / "small.yaml"
