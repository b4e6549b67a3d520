"""What the API server checks when a run is created: its arguments and its graph."""

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from tests.kubeflow.imitation.package import Json, Package, Refused

AFTER_ALL = "ALL_UPSTREAM_TASKS_COMPLETED"
"""The trigger strategy of an exit task."""

_NUMBER = "type double or integer, but the parameter value is not of number value type"
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "NUMBER_DOUBLE": ((int, float), _NUMBER),
    "NUMBER_INTEGER": ((int, float), _NUMBER),
    "STRING": ((str,), "type string, but the input parameter is not of string value type"),
    "BOOLEAN": ((bool,), "type bool, but the input parameter is not of bool value type"),
    "LIST": ((list,), "type list, but the input parameter is not of list value type"),
    "STRUCT": ((dict,), "type struct, but the input parameter is not of struct value type"),
}


def check_parameters(package: Package, given: Mapping[str, Any]) -> dict[str, Any]:
    """The run's parameters: what was given, and the defaults.

    Raises:
        Refused: For unknown ones, wrong types, and parameters with neither default nor value.
    """
    wanted = package.root.get("inputDefinitions", {}).get("parameters", {})
    for name, parameter in wanted.items():
        if name in given:
            _check_type(name, parameter["parameterType"], given[name])
        elif not parameter.get("isOptional") and "defaultValue" not in parameter:
            raise Refused(
                f"parameter {name} is not optional, yet has neither default value nor user "
                "provided value"
            )
    if extra := [name for name in given if name not in wanted]:
        raise Refused(
            "parameter(s) provided are not required by pipeline: " + ", ".join(sorted(extra))
        )
    return {name: given.get(name, one.get("defaultValue")) for name, one in wanted.items()}


def _check_type(name: str, kind: str, value: Any) -> None:
    types, requirement = _TYPES[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise Refused(f"input parameter {name} requires {requirement}")


def check_graph(package: Package) -> None:
    """Refuses what can't become an Argo workflow.

    Raises:
        Refused: As the server words it, as far as that is known.
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", package.name):
        raise Refused(
            "invalid v2 pipeline spec: name should consist of lower case alphanumeric characters, "
            f"'-' or '.', and must start and end with an alphanumeric character: {package.name}"
        )
    _check_dag(package, package.root)


def _check_dag(package: Package, component: Json) -> None:
    tasks: dict[str, Json] = component["dag"]["tasks"]
    for name, task in sorted(tasks.items()):
        if not re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", name):
            raise Refused(f"'{name}' is invalid: must consist of alpha-numeric characters or '-'")
        reference = task.get("componentRef", {}).get("name", "")
        if reference not in package.components:
            raise Refused(f'cannot find component ref name="{reference}"')
        if task.keys() & {"parameterIterator", "artifactIterator"}:
            raise NotImplementedError(f"The imitation has no loops: {name}.")
        _check_component(package, reference, task)
    try:
        TopologicalSorter(dependencies(tasks)).prepare()
    except CycleError as error:
        raise Refused(f"templates.root sorting failed: {error}") from error


def _check_component(package: Package, name: str, task: Json) -> None:
    component = package.components[name]
    if "dag" in component:
        if "outputs" in component["dag"]:
            raise NotImplementedError(f"The imitation has no outputs of DAGs: {name}.")
        _check_dag(package, component)
        return
    label = component.get("executorLabel", "")
    problem = f'error processing component name="{name}": executor(label="{label}")'
    if label not in package.executors:
        raise Refused(f"{problem} not found in deployment config")
    executor = package.executors[label]
    if not executor.keys() & {"container", "importer"}:
        raise Refused(f"{problem}: non-container and non-importer executor not implemented")
    if "importer" in executor and task.get("triggerPolicy", {}).get("condition"):
        raise Refused("triggerPolicy.condition on importer task is not supported")


def dependencies(tasks: Mapping[str, Json]) -> dict[str, set[str]]:
    """For each task those that must have succeeded: as stated, and the producers of its inputs.

    Raises:
        Refused: If one of them isn't a task.
    """
    found = {name: set(task.get("dependentTasks", ())) for name, task in tasks.items()}
    for name, task in tasks.items():
        found[name].update(_producers(task))
        if unknown := sorted(found[name] - tasks.keys()):
            raise Refused(
                f'failed to add implicit deps: unknown producer task "{unknown[0]}" in DAG'
            )
    return found


def _producers(task: Json) -> Iterator[str]:
    inputs = task.get("inputs", {})
    for one in [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]:
        for kind in ("taskOutputParameter", "taskOutputArtifact"):
            if kind in one:
                yield one[kind]["producerTask"]
