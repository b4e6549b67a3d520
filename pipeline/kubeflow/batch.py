"""Batch prediction as a pipeline of one step: the command `batch-predict` in a container."""

import re

from pipeline.config import Config
from pipeline.kubeflow import platform, spec
from pipeline.kubeflow.package import Document, Package
from pipeline.kubeflow.settings import Target

COMPONENT = "BatchPredict"


def package(config: Config, config_name: str, overrides: list[str], target: Target) -> Package:
    """The package `<pipeline>-batch-predict`.

    Args:
      config: the pipeline's.
      config_name: its name, with which the command in the container reads it.
      overrides: `--set` of the compilation, repeated there.
      target: the cluster's.
    """
    task = spec.task_id(COMPONENT)
    parameters = _parameters(config, target)
    settings = [f"workspace={target.workspace.path}", *overrides]
    arguments = ["--config", config_name]
    for setting in settings:
        arguments += ["--set", setting]
    for name in parameters:
        # A folder for each run, in which a retried pod goes on.
        folder = "/{{$.inputs.parameters['run']}}" if name == "output" else ""
        arguments += [f"--{name}", f"{{{{$.inputs.parameters['{name}']}}}}{folder}"]
    command = ["python", "-m", "pipeline", "batch-predict"]
    kinds = {name: {"parameterType": "STRING"} for name in (*parameters, "run")}
    inputs: Document = {name: {"componentInputParameter": name} for name in parameters}
    inputs["run"] = {"runtimeValue": {"constant": spec.RUN_ID}}
    made = spec.document(
        f"{config.name}-{task}",
        {task: {"inputDefinitions": {"parameters": kinds}}},
        {task: spec.container(target, COMPONENT, command, arguments)},
        {
            task: {"inputs": {"parameters": inputs}, "cachingOptions": {}}
            | spec.retry_policy(target, COMPONENT)
        },
        parameters,
    )
    config_of_step = platform.executor_config(target, COMPONENT, is_in_workspace=True)
    return Package(made, {spec.executor_label(task): config_of_step} if config_of_step else {})


def _parameters(config: Config, target: Target) -> Document:
    """What a run may choose."""
    pattern = re.sub(r"\{\w+\}", "*", config.data.pattern)
    described = {
        "input": (f"{config.data.path}/{pattern}", "Files to predict: CSV or Parquet, a pattern."),
        "output": (f"{target.workspace.path}/predicted", "Gets a folder for each run."),
        "version": ("champion", "A version's number or label."),
    }
    return {
        name: {"parameterType": "STRING", "defaultValue": default, "description": text}
        for name, (default, text) in described.items()
    }
