"""From the graph to KFP's pipeline spec: one task, component and executor for each TFX component.

TFX's own compiler (KubeflowV2DagRunner) makes packages for Vertex AI which open-source Kubeflow
Pipelines refuses or runs wrongly; the differences stand in docs/kubeflow.md. The messages are
https://github.com/kubeflow/pipelines/blob/master/api/v2alpha1/pipeline_spec.proto.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from google.protobuf.message import Message
from kfp.version import __version__ as kfp_version
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.pipeline import Pipeline
from tfx.utils import name_utils, proto_utils

from pipeline.config import Config
from pipeline.fingerprint import code_fingerprint
from pipeline.kubeflow import tfx_internals
from pipeline.kubeflow.package import Document
from pipeline.kubeflow.parameters import FINGERPRINT, OF_A_TRAINING, PARAMETERS
from pipeline.kubeflow.settings import Target
from pipeline.kubeflow.train_job import job

NEVER_CACHED = frozenset(
    {"BaselineLookup", "RegistryPush", "JudgedModels", "Decide", "LabelledLog", "ServedInputs"}
)
"""They look at the registry or the prediction log, which KFP's cache key does not know."""
_ENTRYPOINT = ["python", "-m", "pipeline.kubeflow.step"]
_RUN_ID = "run_id"
RUN_ID = "{{$.pipeline_job_uuid}}"
"""KFP puts the run's id in its place if it is all of a constant, and nowhere else."""
_FUNCTIONS = (
    "run_fn",
    "tuner_fn",
    "preprocessing_fn",
)


def build(
    pipeline: Pipeline,
    config: Config,
    target: Target,
    uncached: Iterable[str],
    offered: Collection[str] = OF_A_TRAINING,
) -> Document:
    """The pipeline spec of a graph.

    Args:
      pipeline: the graph.
      config: what it was made from; gives the parameters' defaults.
      target: images, caching and retries.
      uncached: components that always run, beside those that have to.
      offered: the parameters that a run may set.
    """
    components = list(pipeline.components)
    never = NEVER_CACHED | set(uncached)
    used = {c.id: [name for name in offered if c.id in _users(name)] for c in components}
    wanted = {name for names in used.values() for name in names}
    return document(
        pipeline.id,
        {task_id(c.id): _component(c, used[c.id]) for c in components},
        {task_id(c.id): _container(c, config, target) for c in components},
        {task_id(c.id): _task(c, used[c.id], target, c.id not in never) for c in components},
        {name: definition(name, config) for name in offered if name in wanted},
    )


def document(
    name: str,
    components: Mapping[str, Document],
    containers: Mapping[str, Document],
    tasks: Mapping[str, Document],
    parameters: Document,
) -> Document:
    """A pipeline spec from the parts of its tasks, each by task id."""
    return {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "sdkVersion": f"kfp-{kfp_version}",
        "root": {
            "dag": {
                "tasks": {
                    task: {
                        "taskInfo": {"name": task},
                        "componentRef": {"name": f"comp-{task}"},
                        **tasks[task],
                    }
                    for task in tasks
                }
            },
            "inputDefinitions": {"parameters": parameters},
        },
        "components": {
            f"comp-{task}": {"executorLabel": executor_label(task), **component}
            for task, component in components.items()
        },
        "deploymentSpec": {
            "executors": {
                executor_label(task): {"container": container}
                for task, container in containers.items()
            }
        },
    }


def task_id(component: str) -> str:
    """`ExampleGen` -> `example-gen`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", component).lower().replace("_", "-")


def executor_label(task: str) -> str:
    """The label of a task's executor."""
    return f"exec-{task}"


def definition(name: str, config: Config) -> Document:
    """A parameter of the package, with its default and what it is for."""
    if name == FINGERPRINT:
        text = "Identifies the data, so that ExampleGen may be cached; make submit computes it."
        return {"parameterType": "STRING", "defaultValue": "", "description": text}
    known = PARAMETERS[name]
    return {
        "parameterType": known.type,
        "defaultValue": known.default(config),
        "description": known.description,
    }


def _users(name: str) -> tuple[str, ...]:
    return ("ExampleGen",) if name == FINGERPRINT else PARAMETERS[name].steps


def _properties(component: BaseComponent, used: Collection[str]) -> dict[str, Any]:
    """The executor's properties; those that have no value are left out, as TFX does.

    Messages become JSON, and the step makes messages of them again.

    Args:
      component: the component.
      used: the run's parameters that it receives; one may stand for a property.
    """
    given = component.exec_properties | (
        {_RUN_ID: RUN_ID} if _RUN_ID in component.exec_properties else {}
    )
    return {
        name: proto_utils.proto_to_json(value) if isinstance(value, Message) else value
        for name, value in given.items()
        if value is not None and name not in used
    }


def _component(component: BaseComponent, used: Collection[str]) -> Document:
    inputs = {name: _artifact(channel.type) for name, channel in component.inputs.items()}
    properties = {
        name: {"parameterType": _parameter_type(value)}
        for name, value in _properties(component, used).items()
    }
    for name in used:
        kind = "STRING" if name == FINGERPRINT else PARAMETERS[name].type
        properties[name] = {"parameterType": kind}
    outputs = {name: _artifact(channel.type) for name, channel in component.outputs.items()}
    definitions: Document = {"parameters": properties}
    if inputs:
        definitions["artifacts"] = inputs
    return {"inputDefinitions": definitions, "outputDefinitions": {"artifacts": outputs}}


def _artifact(kind: Any) -> Document:
    return {"artifactType": {"instanceSchema": tfx_internals.instance_schema(kind)}}


def _parameter_type(value: Any) -> str:
    if isinstance(value, int):
        return "NUMBER_INTEGER"
    return "NUMBER_DOUBLE" if isinstance(value, float) else "STRING"


def _task(
    component: BaseComponent, used: Collection[str], target: Target, cached: bool
) -> Document:
    settings = target.step(component.id)
    inputs: Document = {
        "parameters": {
            **{
                name: {"runtimeValue": {"constant": value}}
                for name, value in _properties(component, used).items()
            },
            **{name: {"componentInputParameter": name} for name in used},
        }
    }
    if component.inputs:
        inputs["artifacts"] = {
            name: {
                "taskOutputArtifact": {
                    "producerTask": task_id(channel.producer_component_id),
                    "outputArtifactKey": channel.output_key,
                }
            }
            for name, channel in component.inputs.items()
        }
    task: Document = {
        "inputs": inputs,
        "cachingOptions": {"enableCache": True} if cached and settings.cache is not False else {},
    }
    if upstream := sorted(task_id(node.id) for node in component.upstream_nodes):
        task["dependentTasks"] = upstream
    return task | retry_policy(target, component.id)


def retry_policy(target: Target, component: str) -> Document:
    """What a task says of retries."""
    retry = target.step(component).retry
    if retry is None or not retry.count:
        return {}
    policy = {
        "maxRetryCount": retry.count,
        "backoffDuration": f"{retry.seconds}s",
        "backoffFactor": retry.factor,
        "backoffMaxDuration": f"{retry.max_seconds}s",
    }
    return {"retryPolicy": policy}


def _container(component: BaseComponent, config: Config, target: Target) -> Document:
    executor = component.executor_spec.executor_class
    step: Document = {
        "component": component.id,
        "executor": name_utils.get_full_name(executor),
        "inputs": {n: name_utils.get_full_name(c.type) for n, c in component.inputs.items()},
        "outputs": {n: name_utils.get_full_name(c.type) for n, c in component.outputs.items()},
        "optional": [n for n, c in component.spec.INPUTS.items() if c.optional],
        "messages": {
            name: name_utils.get_full_name(type(value))
            for name, value in component.exec_properties.items()
            if isinstance(value, Message)
        },
        "beam": getattr(component.executor_spec, "beam_pipeline_args", None) or [],
        "code": {module: code_fingerprint(module) for module in _own_modules(component)},
    }
    if component.id == "Trainer" and config.training.strategy == "multi_worker":
        step["train_job"] = job.described(config, target)
        target = job.of_the_waiting_step(target)
    described = json.dumps(step, sort_keys=True)
    arguments = ["--step", described, "--input", "{{$}}"]
    return container(target, component.id, _ENTRYPOINT, arguments)


def _own_modules(component: BaseComponent) -> list[str]:
    """The project's modules that a step runs."""
    executor = component.executor_spec.executor_class.__module__
    functions = [component.exec_properties.get(name) for name in _FUNCTIONS]
    modules = {executor, *(name.rpartition(".")[0] for name in functions if name)}
    return sorted(name for name in modules if name.startswith("components."))


def container(target: Target, component: str, command: list[str], arguments: list[str]) -> Document:
    """The container of a step: image, command, environment and resources."""
    step = target.step(component)
    made: Document = {
        "image": step.image or target.image,
        "command": command,
        "args": arguments,
    }
    if step.env:
        made["env"] = [{"name": name, "value": value} for name, value in sorted(step.env.items())]
    resources = {
        "resourceCpuRequest": step.cpu,
        "resourceCpuLimit": step.cpu_limit,
        "resourceMemoryRequest": step.memory,
        "resourceMemoryLimit": step.memory_limit,
        "accelerator": step.accelerator
        and {
            "resourceType": step.accelerator.type,
            "resourceCount": str(step.accelerator.count),
        },
    }
    if given := {name: value for name, value in resources.items() if value}:
        made["resources"] = given
    return made
