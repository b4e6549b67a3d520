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
from components.files import new_file
from pipeline import loading, parts
from pipeline.config import Config
from pipeline.kubeflow import building, parameters, retraining, step
from pipeline.kubeflow.settings import Platform, Target
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
    """A kfp pipeline that can be written.

    Attributes:
      made: kfp's.
      target: the cluster's settings.
      platform: where it is to run.
    """

    made: Any
    target: Target
    platform: Platform

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.made.pipeline_spec.pipeline_info.name)

    @cached_property
    def tasks(self) -> list[str]:
        """The names of its tasks."""
        return building.tasks(self.made)

    @cached_property
    def content(self) -> bytes:
        """The file: the same bytes for the same settings and code."""
        from google.protobuf import json_format
        from kfp.compiler import Compiler

        if self.platform == "vertex":
            job = {
                "displayName": self.name,
                "runtimeConfig": {"gcsOutputDirectory": self.target.pipeline_root},
                "pipelineSpec": json_format.MessageToDict(self.made.pipeline_spec),
            }
            return (json.dumps(job, indent=1, sort_keys=True) + "\n").encode()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "package.yaml")
            Compiler().compile(self.made, str(path))
            return path.read_bytes()

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the content."""
        return hashlib.sha256(self.content).hexdigest()[:12]

    def write(self, folder: Path) -> Path:
        """Writes the file whole or not at all, and returns its path."""
        path = folder / f"{self.name}.{'vertex.json' if self.platform == 'vertex' else 'yaml'}"
        write(path, self.content)
        return path


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(str(path)) as temporary:
        Path(temporary).write_bytes(content)


def load_target(name: Platform, image: str | None = None) -> Target:
    """Reads `configs/kubeflow.yaml` or `configs/vertex.yaml`.

    Args:
      name: which.
      image: another image than the file's.

    Raises:
      PipelineStop: lists every mistake.
    """
    kind = _OnVertex if name == "vertex" else Target
    return loading.load_as(kind, name, [f"image={json.dumps(image)}"] if image else [])


class _OnVertex(Target):
    """The settings for Vertex AI, which lacks much of what Kubernetes has."""

    def problems(self) -> Any:
        """Yields contradictions, and what Vertex AI does not know."""
        yield from super().problems()
        yield from self.problems_on_vertex()


def compile_all(
    config_name: str, overrides: list[str], target: Target, on: Platform, folder: Path = BUILD
) -> list[tuple[Package, Path]]:
    """Compiles and writes every pipeline there is, each beside its path.

    Args:
      config_name: the pipeline's configuration.
      overrides: of it, `a.b=value` each.
      target: the cluster's settings.
      on: the kind of cluster.
      folder: for the packages.

    Raises:
      PipelineStop: the settings are wrong, or don't fit the backend; nothing is written.
    """
    trained = training(loading.load(config_name, overrides), target, on)
    packages = [trained]
    if "components.continued_evaluation" in parts.present():
        packages.append(continued_evaluation(config_name, overrides, target, trained, on))
    if "components.batch_prediction" in parts.present():
        packages.append(batch_prediction(config_name, overrides, target, on))
    for package in packages:
        assert package.content  # all are made before the first is written
    return [(package, package.write(folder)) for package in packages]


def training(
    config: Config,
    target: Target,
    on: Platform = "kubeflow",
    ingest_cached: bool = False,
    trainer_cached: bool = True,
) -> Package:
    """The package of the training pipeline.

    Args:
      config: the pipeline's.
      target: the cluster's.
      on: the kind of cluster.
      ingest_cached: whether ExampleGen may be cached: only if a fingerprint of the data comes with
        each run.
      trainer_cached: whether the Trainer may be: not if a run's `warm_start` is a label.
    """
    uncached = set() if ingest_cached else {"ExampleGen"}
    if config.training.warm_start or not trainer_cached:
        uncached.add("Trainer")  # it looks at the registry, too
    return _package(_TRAINING, config, target, on, uncached, parameters.OF_A_TRAINING)


def continued_evaluation(
    config_name: str,
    overrides: list[str],
    target: Target,
    trained: Package,
    on: Platform = "kubeflow",
) -> Package:
    """The package `<pipeline>-continued-evaluation`.

    Args:
      config_name: the training pipeline's configuration.
      overrides: of it.
      target: the cluster's.
      trained: the training pipeline's package, of which the decision step starts a run; `submit`
        uploads it beside this one.
      on: the kind of cluster; on Vertex AI the step starts nothing.
    """
    config = loading.load(config_name, [*overrides, "data.spans=newest"])
    starter = None
    if on == "kubeflow":
        starter = retraining.described(trained.name, trained.digest, target)
    # It looks which data is new, which KFP's cache key does not know.
    uncached = {"ExampleGen"}
    offered = parameters.OF_AN_EVALUATION
    return _package(_EVALUATION, config, target, on, uncached, offered, {"starter": starter})


def _package(
    graph: str,
    config: Config,
    target: Target,
    on: Platform,
    uncached: set[str],
    offered: tuple[str, ...],
    more: dict[str, Any] | None = None,
) -> Package:
    workspace = Workspace(Path(target.workspace.path), is_here=False)
    module = importlib.import_module(graph)
    made = module.create_pipeline(config, workspace, *(more or {}).values())
    if graph == _TRAINING:
        _check_steps(target, [component.id for component in made.components])
    told = {
        "graph": graph,
        "config": parameters.settings_of(config),
        "workspace": target.workspace.path,
        "git_commit": _git_commit(made.components),
        **step.image_of(graph, config),
        **(more or {}),
    }
    plan = building.Plan(
        name=made.id,
        components=list(made.components),
        config=config,
        target=target,
        platform=on,
        told=told,
        uncached=frozenset(uncached),
        offered=offered,
        train_job=_train_job(config, target, on) if graph == _TRAINING else {},
    )
    return Package(building.build(plan), target, on)


def _git_commit(components: Any) -> str:
    found = [each.exec_properties.get("git_commit") for each in components]
    return next((str(commit) for commit in found if commit), "")


def _train_job(config: Config, target: Target, on: Platform) -> dict[str, Any]:
    """What the Trainer's step needs to know to have its workers run by a TrainJob."""
    if config.training.strategy != "multi_worker":
        return {}
    if on == "vertex":
        raise PipelineStop("training.strategy=multi_worker is not compiled for Vertex AI.")
    from pipeline.kubeflow.train_job import job

    return job.described(config, target)


def batch_prediction(
    config_name: str, overrides: list[str], target: Target, on: Platform = "kubeflow"
) -> Package:
    """The package `<pipeline>-batch-predict`, of one step: the command in a container.

    Args:
      config_name: the configuration, which the command reads in the image.
      overrides: of it, repeated there.
      target: the cluster's.
      on: the kind of cluster.
    """
    from kfp import dsl

    config = loading.load(config_name, overrides)
    described = _batch_parameters(config, target)
    settings = [f"workspace={target.workspace.path}", *overrides]
    building.check_texts({f"--set {setting}": setting for setting in overrides})
    building.check_texts({name: default for name, (default, _) in described.items()})
    chosen = target.step(building.BATCH)
    command = ["python", "-m", "pipeline", "batch-predict"]

    def made(input: str, output: str, version: str, run: str) -> dsl.ContainerSpec:
        arguments: list[Any] = ["--config", config_name]
        for setting in settings:
            arguments += ["--set", setting]
        # A folder for each run, in which a retried pod goes on.
        folder = "{{$.inputs.parameters['output']}}/{{$.inputs.parameters['run']}}"
        arguments += ["--input", input, "--output", folder, "--version", version]
        return dsl.ContainerSpec(chosen.image or target.image, command, arguments)

    component = building.container_component(
        building.BATCH, made, dict.fromkeys(("input", "output", "version", "run"), str)
    )

    def wired(**given: Any) -> None:
        task = component(**given, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        building.place(task, building.BATCH, chosen, target, on)
        task.set_caching_options(False)

    defaults = {name: default for name, (default, _) in described.items()}
    texts = {name: text for name, (_, text) in described.items()}
    name = f"{config.name}-batch-predict"
    return Package(building.pipeline(name, wired, defaults, texts, target), target, on)


def _batch_parameters(config: Config, target: Target) -> dict[str, tuple[str, str]]:
    """What a run may choose: the default of each, and what it is."""
    pattern = re.sub(r"\{\w+\}", "*", config.data.pattern)
    return {
        "input": (f"{config.data.path}/{pattern}", "Files to predict, CSV or Parquet, a pattern."),
        "output": (f"{target.workspace.path}/predicted", "Gets a folder for each run."),
        "version": ("champion", "A version's number or label."),
    }


def _check_steps(target: Target, known: list[str]) -> None:
    there = dict.fromkeys([*known, *_OTHER_STEPS])
    if unknown := sorted(set(target.steps) - set(there)):
        raise PipelineStop(
            f"The cluster's settings name steps that the pipeline lacks: {', '.join(unknown)}. It "
            f"has {', '.join(there)}."
        )


def steps_of(content: bytes) -> dict[str, dict[str, Any]]:
    """What the steps of a written package are told, by component."""
    spec = next(iter(yaml.safe_load_all(content)))
    containers = [each["container"] for each in spec["deploymentSpec"]["executors"].values()]
    told = [
        json.loads(variable["value"])
        for container in containers
        for variable in container.get("env", [])
        if variable["name"] == building.STEP
    ]
    return {each["component"]: each for each in told}
