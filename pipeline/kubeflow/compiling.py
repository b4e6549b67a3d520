"""`python -m pipeline compile`: packages for a cluster, from the graph that also runs here."""

import json
from collections.abc import Sequence
from dataclasses import (
    dataclass,
    replace,
)
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from components.errors import PipelineStop
from pipeline import loading, parts
from pipeline.config import Config
from pipeline.kubeflow import (
    batch,
    conditions,
    lint,
    parameters,
    platform,
    retraining,
    spec,
    vertex,
)
from pipeline.kubeflow.package import Package, write
from pipeline.kubeflow.settings import Target
from pipeline.kubeflow.train_job import job, manifests
from pipeline.workspace import Workspace

Platform = Literal["kubeflow", "vertex"]
BUILD = loading.PROJECT / "build"

_IN_WORKSPACE = frozenset(
    {
        "Tuner",
        "Trainer",
        batch.COMPONENT,
        *spec.NEVER_CACHED,
    }
)
"""Components that use the registry, checkpoints or prediction logs."""
_EVALUATION = "components.continued_evaluation"
_OF_AN_EVALUATION = ("Decide", "DriftFromBefore", "DriftFromTraining", "JudgedModels")
_OF_LOGS = ("LabelledLog", "ServedInputs", "ServedStatistics", "Skew")


@dataclass(frozen=True)
class Compiled:
    """A package, the file that holds it, and what the cluster has to have for it, if anything."""

    package: Package
    path: Path
    manifests: Path | None = None


def load_target(name: Platform, image: str | None = None) -> Target:
    """Reads `configs/kubeflow.yaml` or `configs/vertex.yaml`.

    Args:
      name: which.
      image: another image than the file's.

    Raises:
      PipelineStop: lists every mistake.
    """
    overrides = [f"image={json.dumps(image)}"] if image else []
    return loading.load_as(Target, name, overrides)


def compile_all(
    config_name: str, overrides: list[str], target: Target, on: Platform, folder: Path = BUILD
) -> list[Compiled]:
    """Compiles, checks and writes every pipeline there is.

    Args:
      config_name: the pipeline's configuration.
      overrides: of it, `a.b=value` each.
      target: the cluster's settings.
      on: the kind of cluster.
      folder: for the packages.

    Raises:
      PipelineStop: a package breaks rules of the backend; nothing is written.
    """
    config = loading.load(config_name, overrides)
    packages = [training(config, target)]
    if _EVALUATION in parts.present():
        packages.append(continued_evaluation(config_name, overrides, target, on))
    if "components.batch_prediction" in parts.present():
        packages.append(batch.package(config, config_name, overrides, target))
    check(packages, on)
    made = [write_package(package, target, on, folder) for package in packages]
    if config.training.strategy == "multi_worker":
        path = folder / job.manifests_file(config.name)
        write(path, manifests.text(config, target))
        made[0] = replace(made[0], manifests=path)
    return made


def training(
    config: Config, target: Target, ingest_cached: bool = False, trainer_cached: bool = True
) -> Package:
    """The package of the training pipeline.

    Args:
      config: the pipeline's.
      target: the cluster's.
      ingest_cached: whether ExampleGen may be cached: only if a fingerprint of the data comes with
        each run.
      trainer_cached: whether the Trainer may be: not if a run's `warm_start` is a label.
    """
    from pipeline import graph

    workspace = Workspace(Path(target.workspace.path), is_here=False)
    pipeline = graph.create_pipeline(config, workspace)
    _check_components(target, [component.id for component in pipeline.components])
    uncached = set() if ingest_cached else {"ExampleGen"}
    if config.training.warm_start or not trainer_cached:
        uncached.add("Trainer")  # it looks at the registry, too
    made = spec.build(pipeline, config, target, uncached)
    if config.training.strategy == "multi_worker":
        target = job.of_the_waiting_step(target)
    return Package(made, executors(target, [component.id for component in pipeline.components]))


def continued_evaluation(
    config_name: str, overrides: list[str], target: Target, on: Platform
) -> Package:
    """The package `<pipeline>-continued-evaluation`.

    Args:
      config_name: the training pipeline's configuration.
      overrides: of it.
      target: the cluster's.
      on: the kind of cluster; on Kubeflow the decision step starts a retraining.
    """
    graph = import_module(f"{_EVALUATION}.graph")
    config = loading.load(config_name, [*overrides, "data.spans=newest"])
    workspace = Workspace(Path(target.workspace.path), is_here=False)
    starter = retraining.described(config, target) if on == "kubeflow" else None
    pipeline = graph.create_pipeline(config, workspace, starter)
    # It looks which data is new, which KFP's cache key does not know.
    made = spec.build(pipeline, config, target, {"ExampleGen"}, parameters.OF_AN_EVALUATION)
    conditions.only_where(made, "judged-models", "fresh")
    return Package(made, executors(target, [component.id for component in pipeline.components]))


def executors(target: Target, components: list[str]) -> dict[str, Any]:
    """What Kubernetes is told about each of these components, by executor label."""
    found = {
        spec.executor_label(spec.task_id(name)): platform.executor_config(
            target, name, name in _IN_WORKSPACE
        )
        for name in components
    }
    return {label: config for label, config in found.items() if config}


def check(packages: Sequence[Package], on: Platform) -> None:
    """Checks packages against every rule of the backend.

    Raises:
      PipelineStop: lists each violation with its package, step and rule.
    """
    lines = [
        f"  {package.name}: {found.step or 'as a whole'}: {found.rule}: {found.text}"
        for package in packages
        for found in _violations(package, on)
    ]
    if lines:
        raise PipelineStop(f"This would not run as it should on {on}:\n" + "\n".join(lines))


def _violations(package: Package, on: Platform) -> list[lint.Violation]:
    never = {spec.task_id(name) for name in spec.NEVER_CACHED}
    if on == "vertex":
        return lint.check(vertex.spec(package), None, on, never_cached=never)
    return lint.check(package.spec, package.platform, on, never_cached=never)


def _check_components(target: Target, known: list[str]) -> None:
    of_all_packages = [
        *known,
        *_OF_AN_EVALUATION,
        *_OF_LOGS,
        "Tuner",
        batch.COMPONENT,
    ]
    there = dict.fromkeys(of_all_packages)
    unknown = sorted(set(target.steps) - set(there))
    if unknown:
        raise PipelineStop(
            f"The cluster's settings name steps that the pipeline lacks: {', '.join(unknown)}. It "
            f"has {', '.join(there)}."
        )


def write_package(package: Package, target: Target, on: Platform, folder: Path) -> Compiled:
    """Writes a package as the platform reads it."""
    if on == "vertex":
        path = folder / f"{package.name}.vertex.json"
        write(path, vertex.text(package, target))
    else:
        path = folder / f"{package.name}.yaml"
        write(path, package.text())
    return Compiled(package, path)
