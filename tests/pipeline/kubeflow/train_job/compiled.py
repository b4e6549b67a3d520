"""A project that ran as far as Transform, and its Trainer's step as compiled."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests import small
from tests.end_to_end.project import Project
from tests.pipeline.kubeflow.train_job.steps import Document, TrainerStep

_TRAINING = {"strategy": "multi_worker", "workers": 2, "checkpoints": {"every_steps": 10}}
_PROGRAM = Path(__file__).parent / "transforming.py"
SETTINGS = small.SETTINGS | {"training": small.SETTINGS["training"] | _TRAINING}


@dataclass(frozen=True)
class Compiled:
    """What `make compile` wrote, and what the run left.

    Attributes:
      project: the folder that stands for the image.
      workspace: the folder that stands for the volume.
      package: the pipeline spec.
      manifests: for kubectl apply.
    """

    project: Project
    workspace: Path
    package: Document
    manifests: str

    def step(self, outputs: Path) -> TrainerStep:
        """The Trainer's step with the run's inputs."""
        container = self.package["deploymentSpec"]["executors"]["exec-trainer"]["container"]
        arguments = container["args"]
        described = json.loads(arguments[arguments.index("--step") + 1])
        inputs = {
            "examples": self.output("Transform", "transformed_examples"),
            "transform_graph": self.output("Transform", "transform_graph"),
            "schema": self.output("CuratedSchema", "schema"),
        }
        return TrainerStep(described, self._parameters(), inputs, outputs, self.project.folder)

    def output(self, component: str, name: str) -> Path:
        """An artifact of the local run."""
        (found,) = self.project.folder.glob(f"workspace/pipeline_root/small/{component}/{name}/*")
        return found

    def _parameters(self) -> Document:
        root = self.package["root"]
        given = root["dag"]["tasks"]["trainer"]["inputs"]["parameters"]
        defaults = root["inputDefinitions"]["parameters"]
        return {
            name: one["runtimeValue"]["constant"]
            if "runtimeValue" in one
            else defaults[one["componentInputParameter"]]["defaultValue"]
            for name, one in given.items()
        }


def make(folder: Path, **train_job: Any) -> Compiled:
    """Transforms the project's data, and compiles it."""
    project, workspace = Project(folder / "project", SETTINGS), folder / "cluster-workspace"
    gpu = {"type": "nvidia.com/gpu", "count": 1}
    cluster = {
        "image": "registry.example/small:1",
        "pipeline_root": "minio://mlpipeline/v2/artifacts",
        "workspace": {"claim": "workspace", "path": str(workspace)},
        "defaults": {"cpu": "100m", "memory": "512Mi"},
        "steps": {"Trainer": {"accelerator": gpu, "memory": "4Gi"}},
        "train_job": train_job,
    }
    small.write_config(project.folder / "configs", cluster, "kubeflow")
    told = subprocess.run(
        [sys.executable, str(_PROGRAM)],
        cwd=project.folder,
        env=small.environment_of_a_copy() | {"PYTHONPATH": str(project.folder)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    build = project.folder / "build"
    package, *_ = yaml.safe_load_all((build / "small.yaml").read_text())
    return Compiled(project, workspace, package, (build / "small.cluster.yaml").read_text())
