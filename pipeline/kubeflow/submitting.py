"""`python -m pipeline submit`: compiles, says what the data is, and hands over to `submit`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from components.errors import PipelineStop
from components.ingest.spans import resolve
from pipeline import loading
from pipeline.config import Config
from pipeline.kubeflow import (
    batch,
    compiling,
    parameters,
)
from pipeline.kubeflow.package import Package
from pipeline.kubeflow.part import Which
from pipeline.kubeflow.settings import Target
from pipeline.kubeflow.submit import Submission, submit


@dataclass(frozen=True)
class Wish:
    """What a person wants to be run.

    Attributes:
      config: the pipeline's configuration.
      overrides: of it.
      which: the pipeline.
      values: parameters of the run, `name=value` each.
      schedule: six cron fields, for a recurring run.
      run_name: None for a name with the time.
      experiment: None for the settings'.
      timeout_seconds: how long the run is followed.
      follow: whether it is.
      dry_run: whether nothing is sent.
    """

    config: str
    overrides: list[str]
    which: Which
    values: list[str]
    schedule: str | None
    run_name: str | None
    experiment: str | None
    timeout_seconds: float
    follow: bool
    dry_run: bool


def main(wish: Wish, target: Target, show: Callable[[str], None]) -> int:
    """Compiles and submits; the exit code comes back.

    Raises:
      PipelineStop: nothing was submitted.
    """
    config = loading.load(wish.config, wish.overrides)
    values = read_values(wish.values)
    if wish.which == Which.TRAINING:
        package, values = _training(config, target, values, wish, show)
    if wish.which == Which.CONTINUED_EVALUATION:
        parameters.check_evaluation(values)
        package = compiling.continued_evaluation(wish.config, wish.overrides, target, "kubeflow")
    if wish.which == Which.BATCH_PREDICT:
        package = batch.package(config, wish.config, wish.overrides, target)
    compiling.check([package], "kubeflow")
    compiled = compiling.write_package(package, target, "kubeflow", compiling.BUILD)
    now = datetime.now(UTC)
    name = package.name if wish.schedule else f"{package.name}-{now:%Y%m%d-%H%M%S}"
    request = Submission(
        package=compiled.path,
        pipeline=package.name,
        parameters=values,
        experiment=wish.experiment or target.experiment,
        run_name=wish.run_name or name,
        service_account=target.service_account,
        pipeline_root=target.pipeline_root,
        schedule=wish.schedule,
        timeout_seconds=wish.timeout_seconds,
        dry_run=wish.dry_run,
        follow=wish.follow,
    )
    return submit(request, os.environ, show)


def read_values(given: list[str]) -> dict[str, Any]:
    """`name=value` texts as values: numbers where the parameter is one, else the text as it is.

    Raises:
      PipelineStop: one of them is no such text.
    """
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise PipelineStop(f"--param {text}: expected NAME=VALUE, e.g. steps=500.")
        known = parameters.PARAMETERS.get(name)
        try:
            is_number = known is not None and known.type != "STRING"
            values[name] = yaml.safe_load(value) if is_number else value
        except yaml.YAMLError as error:
            raise PipelineStop(f"--param {text}: '{value}' is not a YAML value.") from error
    return values


def _training(
    config: Config,
    target: Target,
    values: dict[str, Any],
    wish: Wish,
    show: Callable[[str], None],
) -> tuple[Package, dict[str, Any]]:
    """The package, in which is cached what the values identify: data, version to start from."""
    parameters.check(values)
    start = parameters.PARAMETERS["warm_start"].read(values.get("warm_start", ""))
    trainer_cached = not isinstance(start, str)  # a label may move
    fingerprint = values.get(parameters.FINGERPRINT) or _fingerprint(config, values)
    if wish.schedule:
        # A fingerprint of today would be handed to every later run.
        values.pop(parameters.FINGERPRINT, None)
        return compiling.training(config, target, trainer_cached=trainer_cached), values
    if fingerprint is None:
        show(
            "ExampleGen will run, and all behind it: the data is not visible from here. If it is "
            f"what it was, say so: --param {parameters.FINGERPRINT}=ANY-NAME-FOR-IT."
        )
        return compiling.training(config, target, trainer_cached=trainer_cached), values
    package = compiling.training(config, target, True, trainer_cached)
    return package, {**values, parameters.FINGERPRINT: str(fingerprint)}


def _fingerprint(config: Config, values: dict[str, Any]) -> str | None:
    """What identifies the data, if it is the image's own (`package:`): the same here and there."""
    path = str(values.get("data_path", config.data.path))
    if not path.startswith("package:"):
        return None
    spans = parameters.PARAMETERS["span"]
    wanted = spans.read(values.get("span", spans.default(config)))
    checked = type(config.data).model_validate({**config.data.model_dump(), "spans": wanted})
    folder = Path(loading.in_package("data_path", path))
    return resolve(str(folder), config.data.pattern, checked.spans).fingerprint
