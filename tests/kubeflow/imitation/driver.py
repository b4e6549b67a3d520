"""The driver: from a task to the pod that runs it."""

import copy
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.kubeflow.imitation import condition, placeholders, pod_spec
from tests.kubeflow.imitation.metadata import Artifact, plain
from tests.kubeflow.imitation.package import Json, Package
from tests.kubeflow.imitation.store import local_path

LOGS = "executor-logs"
"""An output that every step has, without asking."""

_LONGEST_ARGUMENT = 128 * 1024
"""Bytes of one argument of a Linux process: a driver is told a task by arguments."""

_JSON_TYPES = {
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
    "TASK_FINAL_STATUS": (dict,),
}


class DriverError(Exception):
    """The driver fails, and with it the task: no pod is made."""


@dataclass(frozen=True)
class RunContext:
    """A run, as its drivers know it.

    Attributes:
        package: After Argo's rewriting.
        id: The run's UUID.
        name: The workflow's.
        display_name: The run's, as submitted.
        root: What all URIs of the run begin with.
    """

    package: Package
    id: str
    name: str
    display_name: str
    root: str


@dataclass
class Outcome:
    """What is known of a task that has run."""

    state: str
    artifacts: dict[str, Artifact]
    parameters: Json


@dataclass(frozen=True)
class Scope:
    """What a task of one DAG can refer to: the DAG's own parameters, and the tasks before it."""

    parameters: Mapping[str, Any]
    outcomes: Mapping[str, Outcome]


@dataclass
class PodPatch:
    """What the driver hands to the pod, in the form of the recordings."""

    executor_input: Json
    component_spec: Json
    step_command: list[str] = field(default_factory=list)
    env: list[Json] = field(default_factory=list)
    resources: Json = field(default_factory=dict)
    volume_mounts: list[Json] = field(default_factory=list)
    pod: Json = field(default_factory=dict)


def drive(run: RunContext, name: str, task: Json, scope: Scope) -> PodPatch | None:
    """Makes a task's pod; None if its condition says that it isn't to run.

    Args:
        run: The run.
        name: The task's id in its DAG.
        task: Its spec.
        scope: Where its inputs come from.

    Raises:
        DriverError: As the real driver fails, in its words.
        ConditionError: If the condition can't be evaluated.
    """
    component = copy.deepcopy(run.package.components[task["componentRef"]["name"]])
    container = run.package.executors[component["executorLabel"]]["container"]
    _check(task, component, container)
    inputs = resolve_inputs(run, name, task, component, scope)
    rule = task.get("triggerPolicy", {}).get("condition")
    if rule and not condition.evaluate(rule, inputs):
        return None
    outputs = _provision(run, name, component)
    patch = PodPatch({"inputs": inputs, "outputs": outputs}, component)
    try:
        command = [*container.get("command", ()), *container.get("args", ())]
        patch.step_command = placeholders.by_driver(command, patch.executor_input)
    except KeyError as error:
        raise DriverError(f"parameter {error} not found in executor input") from error
    settings = run.package.kubernetes.get(component["executorLabel"], {})

    def resolve(parameter: Json) -> Any:
        return _parameter(run, name, task, parameter, scope)

    patch.env = pod_spec.environment(container, settings, resolve)
    patch.resources = pod_spec.resources(container)
    patch.volume_mounts, pod_volumes = pod_spec.volumes(settings, resolve)
    patch.pod = pod_spec.pod_fields(settings, pod_volumes)
    return patch


def _check(task: Json, component: Json, container: Json) -> None:
    if not task.get("taskInfo", {}).get("name"):
        raise DriverError("invalid container driver args: task spec is required")
    for what in (task, component, container):
        if (size := len(json.dumps(what))) >= _LONGEST_ARGUMENT:
            raise DriverError(f"fork/exec /bin/driver: argument list too long ({size} bytes)")


def resolve_inputs(run: RunContext, name: str, task: Json, component: Json, scope: Scope) -> Json:
    """The inputs of an executor input.

    Raises:
        DriverError: For what can't be resolved, and values of the wrong type.
    """
    stated = task.get("inputs", {})
    parameters = {
        key: _parameter(run, name, task, one, scope)
        for key, one in stated.get("parameters", {}).items()
    }
    for key, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
        _fit(parameters, key, spec)
    artifacts = {
        key: {"artifacts": [_artifact(one, scope).as_input()]}
        for key, one in stated.get("artifacts", {}).items()
    }
    both = {"parameterValues": plain(parameters), "artifacts": artifacts}
    return {kind: found for kind, found in both.items() if found}


def _parameter(run: RunContext, name: str, task: Json, spec: Json, scope: Scope) -> Any:
    match spec:
        case {"parameterExpressionSelector": selector}:
            raise NotImplementedError(f"The imitation has no selectors: {selector}.")
        case {"componentInputParameter": key}:
            if key not in scope.parameters:
                raise DriverError(f"parent DAG does not have input parameter {key}")
            return scope.parameters[key]
        case {"taskOutputParameter": {"producerTask": producer, "outputParameterKey": key}}:
            return scope.outcomes[producer].parameters.get(key)
        case {"taskFinalStatus": _}:
            return _final_status(run, task["dependentTasks"][0], scope)
        case {"runtimeValue": {"constant": constant}}:
            return _constant(run, name, constant)
    raise DriverError(f"resolving input parameter with spec {spec}: not implemented")


def _constant(run: RunContext, name: str, constant: Any) -> Any:
    """KFP's placeholders among constants are such only if they are the whole value."""
    known = {
        "{{$.pipeline_job_name}}": run.display_name,
        "{{$.pipeline_job_resource_name}}": run.name,
        "{{$.pipeline_job_uuid}}": run.id,
        "{{$.pipeline_task_name}}": name,
    }
    return known.get(constant, constant) if isinstance(constant, str) else constant


def _final_status(run: RunContext, producer: str, scope: Scope) -> Json:
    state = scope.outcomes[producer].state
    return {
        "error": {},
        "pipelineJobResourceName": run.name,
        "pipelineTaskName": producer,
        "state": "COMPLETE" if state == "SUCCEEDED" else state,
    }


def _fit(parameters: Json, key: str, spec: Json) -> None:
    """Checks a value's type; what isn't text becomes text where text is wanted."""
    kind, value = spec["parameterType"], parameters.get(key)
    if value is None and spec.get("isOptional"):
        # The launcher fills the default in.
        parameters.pop(key, None)
    elif value is None and (key in parameters or "defaultValue" not in spec):
        raise DriverError(
            f'neither value nor default value provided for non-optional parameter "{key}"'
        )
    elif kind == "STRING":
        parameters[key] = placeholders.as_text(plain(value))
    elif not isinstance(value, _JSON_TYPES[kind]) or (
        isinstance(value, bool) and kind != "BOOLEAN"
    ):
        raise DriverError(f'input parameter "{key}" type mismatch: expect {kind}, got {value!r}')


def _artifact(spec: Json, scope: Scope) -> Artifact:
    match spec:
        case {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": key}}:
            if key in scope.outcomes[producer].artifacts:
                return scope.outcomes[producer].artifacts[key]
            raise DriverError(
                f'cannot find output artifact key "{key}" in producer task "{producer}"'
            )
    raise NotImplementedError(f"The imitation has no such input: {spec}.")


def _provision(run: RunContext, name: str, component: Json) -> Json:
    """The outputs of an executor input, each time under another URI.

    The component's spec gets the logs too, if it has other artifacts (as recorded).
    """
    definitions = component.get("outputDefinitions", {})
    logs = {LOGS: {"artifactType": {"schemaTitle": "system.Artifact"}}}
    if "artifacts" in definitions:
        definitions["artifacts"].update(logs)
    root = f"{run.root}/{name}/{uuid.uuid4()}"
    provisioned: Json = {"artifacts": {}, "outputFile": f"{local_path(root)}/output_metadata.json"}
    for key, spec in {**definitions.get("artifacts", {}), **logs}.items():
        one = {"name": key, "type": spec["artifactType"], "uri": f"{root}/{key}"}
        if "metadata" in spec:
            one["metadata"] = spec["metadata"]
        provisioned["artifacts"][key] = {"artifacts": [one]}
    if parameters := definitions.get("parameters"):
        provisioned["parameters"] = {
            key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in parameters
        }
    return provisioned
