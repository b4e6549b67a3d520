"""A Trainer's step whose workers run a shell script: what the step does needs no real training."""

from pathlib import Path
from typing import Any

from pipeline import loading
from pipeline.kubeflow.settings import Target
from pipeline.kubeflow.train_job import job, manifests
from tests import small
from tests.pipeline.kubeflow.train_job.steps import TrainerStep

ROOT = Path(__file__).resolve().parents[4]

GOOD = """
mkdir -p $0/outputs/model/0
echo weights > $0/outputs/model/0/weights
model='{"name": "model", "uri": "'$0'/outputs/model/0", "metadata": {"worth": 2.5}}'
echo '{"artifacts": {"model": {"artifacts": ['$model']}}}' > $0/output.json
"""
"""What a chief does that succeeds: `$0` is the staged folder."""


def target(folder: Path, **settings: Any) -> Target:
    """A cluster's settings; the folder stands for the workspace volume."""
    given = {
        "image": "registry.example/small:1",
        "pipeline_root": "minio://mlpipeline/v2/artifacts",
        "workspace": {"claim": "workspace", "path": str(folder)},
    }
    return Target.model_validate(given | settings)


def config(folder: Path, **training: Any) -> Any:
    """The pipeline's configuration."""
    settings = small.SETTINGS["training"] | {"strategy": "multi_worker"} | training
    small.write_config(folder / "configs", small.SETTINGS | {"training": settings})
    return loading.load("small", configs=folder / "configs")


def step(folder: Path, script: str, restarts: int = 3, **train_job: Any) -> tuple[TrainerStep, str]:
    """The step, and the cluster's manifests.

    Args:
      folder: for everything.
      script: of each worker; JOB_COMPLETION_INDEX is its number.
      restarts: how often the group starts again.
      train_job: settings.
    """
    pipeline, cluster = config(folder, restarts=restarts), target(folder, train_job=train_job)
    settings = job.described(pipeline, cluster)
    settings["spec"]["trainer"]["command"] = ["sh", "-c", script]
    described = {
        "component": "Trainer",
        "inputs": {"examples": "tfx.types.standard_artifacts.Examples"},
        "outputs": {"model": "tfx.types.standard_artifacts.Model"},
        "code": {},
        "train_job": settings,
    }
    examples = folder / "examples"
    (examples / "Split-train").mkdir(parents=True)
    (examples / "Split-train" / "rows.gz").write_text("rows")
    made = TrainerStep(described, {"run_fn": "f"}, {"examples": examples}, folder / "outputs", ROOT)
    return made, manifests.text(pipeline, cluster)
