"""`python -m pipeline compile`: packages for a cluster, from the graph that also runs here."""

import hashlib
import importlib
import json
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from components.errors import PipelineStop
from components.files import write_atomically
from pipeline import loading, parts
from pipeline.config import Config
from pipeline.kubeflow import building, parameters, retraining, step
from pipeline.kubeflow.settings import OnVertex, Platform, Target
from pipeline.workspace import Workspace

BUILD = loading.PROJECT / "build"
_TRAINING = "pipeline.graph"
_EVALUATION = "components.continued_evaluation.graph"
_OTHER_STEPS = (
    *("Tuner", "Decide", "DriftFromBefore", "DriftFromTraining", "JudgedModels", "LabelledLog"),
    *("ServedInputs", "ServedStatistics", "Skew", building.BATCH),
)
"""Steps that the training pipeline may have, or other pipelines."""


@dataclass(frozen=True)
class Package:
    """A kfp pipeline that can be written, and the settings of where it is to run."""

    made: Any
    target: Target

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.made.pipeline_spec.pipeline_info.name)

    @cached_property
    def tasks(self) -> list[str]:
        """The names of its tasks."""
        return building.tasks_of(self.made)

    @cached_property
    def content(self) -> str:
        """The file: the same text for the same settings and code."""
        from google.protobuf import json_format
        from kfp.compiler import Compiler

        if isinstance(self.target, OnVertex):
            job = {
                "displayName": self.name,
                "runtimeConfig": {"gcsOutputDirectory": self.target.pipeline_root},
                "pipelineSpec": json_format.MessageToDict(self.made.pipeline_spec),
            }
            return json.dumps(job, indent=1, sort_keys=True) + "\n"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "package.yaml")
            Compiler().compile(self.made, str(path))
            return path.read_text()

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the content."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:12]

    def write(self, folder: Path) -> Path:
        """Writes the file whole or not at all, and returns its path."""
        ending = "vertex.json" if isinstance(self.target, OnVertex) else "yaml"
        return write(folder / f"{self.name}.{ending}", self.content)


def write(path: Path, content: str) -> Path:
    """Writes a file whole or not at all, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(str(path), content)
    return path


def load_target(
    name: Platform, image: str | None = None, configs: Path = loading.CONFIGS
) -> Target:
    """Reads `configs/kubeflow.yaml` or `configs/vertex.yaml`, perhaps with another image.

    Raises:
      PipelineStop: lists every mistake.
    """
    kind = OnVertex if name == "vertex" else Target
    return loading.load_as(kind, name, [f"image={json.dumps(image)}"] if image else [], configs)


def compile_all(
    config_name: str, overrides: list[str], target: Target, folder: Path = BUILD
) -> list[tuple[Package, Path]]:
    """Compiles and writes every pipeline there is into a folder; each beside its path.

    Raises:
      PipelineStop: the settings are wrong, or don't fit the backend; nothing is written.
    """
    packages = [training(loading.load(config_name, overrides), target)]
    if "components.continued_evaluation" in parts.present():
        packages.append(continued_evaluation(config_name, overrides, target, packages[0]))
    if "components.batch_prediction" in parts.present():
        packages.append(batch_prediction(config_name, overrides, target))
    assert all(package.content for package in packages)  # are made before the first is written
    return [(package, package.write(folder)) for package in packages]


def training(
    config: Config, target: Target, ingest_cached: bool = False, trainer_cached: bool = True
) -> Package:
    """The package of the training pipeline.

    ExampleGen may be cached only if a fingerprint of the data comes with each run, and the Trainer
    not if a run's `warm_start` is a label.
    """
    uncached = set() if ingest_cached else {"ExampleGen"}
    if config.training.warm_start or not trainer_cached:
        uncached.add("Trainer")  # it looks at the registry, too
    return _package(_TRAINING, config, target, uncached, parameters.OF_A_TRAINING)


def continued_evaluation(
    config_name: str, overrides: list[str], target: Target, trained: Package
) -> Package:
    """The package `<pipeline>-continued-evaluation`.

    Its decision step starts a run of the training package, which `submit` uploads beside it; on
    Vertex AI it starts nothing.
    """
    config = loading.load(config_name, [*overrides, "data.spans=newest"])
    starter = None
    if not isinstance(target, OnVertex):
        starter = retraining.described(trained.name, trained.digest, target)
    # ExampleGen looks which data is new, which KFP's cache key does not know.
    offered = parameters.OF_AN_EVALUATION
    return _package(_EVALUATION, config, target, {"ExampleGen"}, offered, starter=starter)


def _package(
    graph: str,
    config: Config,
    target: Target,
    uncached: set[str],
    offered: dict[str, parameters.Parameter],
    **more: Any,
) -> Package:
    workspace = Workspace(Path(target.workspace.path), is_here=False)
    made = importlib.import_module(graph).create_pipeline(config, workspace, **more)
    commits = [each.exec_properties.get("git_commit") for each in made.components]
    told = {
        "graph": graph,
        "config": config.model_dump(mode="json", exclude_unset=True),
        "workspace": target.workspace.path,
        "git_commit": next(filter(None, commits), ""),
        **step.image_of(graph, config),
        "more": more,
    }
    train_job: dict[str, Any] = {}
    if graph == _TRAINING:
        _check_steps(target, [component.id for component in made.components])
        train_job = _train_job(config, target)
    components = list(made.components)
    plan = building.Plan(made.id, components, config, target, told, uncached, offered, train_job)
    return Package(plan.build(), target)


def _train_job(config: Config, target: Target) -> dict[str, Any]:
    """What the Trainer's step needs to know to have its workers run by a TrainJob."""
    if config.training.strategy != "multi_worker":
        return {}
    if isinstance(target, OnVertex):
        raise PipelineStop("training.strategy=multi_worker is not compiled for Vertex AI.")
    from pipeline.kubeflow.train_job import job

    return job.described(config, target)


def batch_prediction(config_name: str, overrides: list[str], target: Target) -> Package:
    """The package `<pipeline>-batch-predict`, of one step: the command in a container.

    The command reads the configuration in the image, with the same overrides.
    """
    from kfp import dsl

    config, chosen = loading.load(config_name, overrides), target.step(building.BATCH)
    pattern = re.sub(r"\{\w+\}", "*", config.data.pattern)
    described = {
        "input": (f"{config.data.path}/{pattern}", "Files to predict, CSV or Parquet, a pattern."),
        "output": (f"{target.workspace.path}/predicted", "Gets a folder for each run."),
        "version": ("champion", "A version's number or label."),
    }
    values = {name: default for name, (default, _) in described.items()}
    building.check_texts(values | {f"--set {setting}": setting for setting in overrides})

    def made(input: str, output: str, version: str, run: str) -> dsl.ContainerSpec:
        arguments: list[Any] = ["batch-predict", "--config", config_name]
        for setting in [f"workspace={target.workspace.path}", *overrides]:
            arguments += ["--set", setting]
        # A folder for each run, in which a retried pod goes on.
        folder = "{{$.inputs.parameters['output']}}/{{$.inputs.parameters['run']}}"
        arguments += ["--input", input, "--output", folder, "--version", version]
        image = chosen.image or target.image
        return dsl.ContainerSpec(image, ["python", "-m", "pipeline"], arguments)

    def wire(**given: Any) -> None:
        kinds = dict.fromkeys([*given, "run"], str)
        component = building.container_component(building.BATCH, made, kinds)
        task = component(**given, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        building.place(task, building.BATCH, chosen, target)
        task.set_caching_options(False)

    texts = {name: text for name, (_, text) in described.items()}
    return Package(building.pipeline(f"{config.name}-batch-predict", wire, values, texts), target)


def _check_steps(target: Target, known: list[str]) -> None:
    there = dict.fromkeys([*known, *_OTHER_STEPS])
    if unknown := sorted(target.steps.keys() - there.keys()):
        raise PipelineStop(
            f"The cluster's settings name steps that the pipeline lacks: {', '.join(unknown)}. It "
            f"has {', '.join(there)}."
        )


def steps_of(content: str) -> dict[str, dict[str, Any]]:
    """What the steps of a written package are told, by component."""
    spec = next(iter(yaml.load_all(content, yaml.CSafeLoader)))
    told = [
        json.loads(variable["value"])
        for executor in spec["deploymentSpec"]["executors"].values()
        for variable in executor["container"].get("env", [])
        if variable["name"] == building.STEP
    ]
    return {each["component"]: each for each in told}
