"""A task's inputs against what its component declares."""

from collections.abc import Iterator
from typing import Any

import yaml
from google.protobuf.json_format import MessageToDict

from pipeline.kubeflow.lint.parameters import type_name, value_fits
from pipeline.kubeflow.lint.reading import Message, Package, Task
from pipeline.kubeflow.lint.references import output, outputs_used
from pipeline.kubeflow.lint.rules import Violation

_KINDS = ("artifacts", "parameters")
_ANY = "system.Artifact"
_NUMBERS = {"NUMBER_INTEGER", "NUMBER_DOUBLE"}


def undeclared(package: Package) -> Iterator[Violation]:
    """Inputs that the component doesn't know."""
    for task, component in package.component_tasks():
        for kind in _KINDS:
            given = getattr(task.spec.inputs, kind)
            declared = getattr(component.input_definitions, kind)
            for name in sorted(set(given) - set(declared)):
                text = f"Its component has no {name!r} among its {kind}; declare it there."
                yield Violation(task.id, "undeclared-input", text)


def missing(package: Package) -> Iterator[Violation]:
    """Inputs that the component needs and doesn't get."""
    for task, component in package.component_tasks():
        for kind in _KINDS:
            given = getattr(task.spec.inputs, kind)
            declared = getattr(component.input_definitions, kind)
            needed = {name for name, definition in declared.items() if not definition.is_optional}
            empty = {name for name, source in given.items() if not _has_source(source)}
            for name in sorted((needed - set(given) - _iterated(task.spec)) | empty):
                text = f"It gets no value for {name!r} of its component's {kind}; give one."
                yield Violation(task.id, "missing-input", text)


def _has_source(given: Message) -> bool:
    kind = given.WhichOneof("kind")
    return kind is not None and (
        kind != "runtime_value" or given.runtime_value.WhichOneof("value") is not None
    )


def _iterated(task: Message) -> set[str]:
    return {task.parameter_iterator.item_input, task.artifact_iterator.item_input}


def parameter_types(package: Package) -> Iterator[Violation]:
    """Values, and outputs and inputs passed on, of another type than the component's."""
    for task, component in package.component_tasks():
        declared = component.input_definitions.parameters
        for name, given in task.spec.inputs.parameters.items():
            if name not in declared:
                continue
            wanted = type_name(declared[name])
            came = _mismatch(package, task, name, given, wanted)
            if came and not given.parameter_expression_selector:
                text = f"Input {name!r} is {wanted} and gets {came}; make them one type."
                yield Violation(task.id, "parameter-type", text)


def _mismatch(package: Package, task: Task, name: str, given: Message, wanted: str) -> str | None:
    """What came, if it doesn't fit; everything may become a string."""
    kind = given.WhichOneof("kind")
    source: Any = None
    if wanted == "STRING":
        return None
    if kind == "runtime_value" and given.runtime_value.HasField("constant"):
        value = MessageToDict(given.runtime_value.constant)
        return None if value_fits(value, wanted) else f"the constant {value!r}"
    if kind == "component_input_parameter":
        parameters = task.dag.owner.input_definitions.parameters
        source = parameters.get(given.component_input_parameter)
    elif kind == "task_output_parameter":
        found = (r for r in outputs_used(task.spec) if (r.kind, r.input) == ("parameters", name))
        source = output(package, task.dag, next(found))
    if source is None or {type_name(source), wanted} <= _NUMBERS or type_name(source) == wanted:
        return None
    return f"a {type_name(source)}"


def artifact_types(package: Package) -> Iterator[Violation]:
    """Artifacts of another type than the component takes."""
    for task, component in package.component_tasks():
        declared = component.input_definitions.artifacts
        for reference in outputs_used(task.spec):
            source = output(package, task.dag, reference)
            if reference.kind != "artifacts" or source is None or reference.input not in declared:
                continue
            wanted, came = (title(a.artifact_type) for a in (declared[reference.input], source))
            if wanted != came and _ANY not in (wanted, came):
                text = (
                    f"Input {reference.input!r} takes {wanted or 'no type'}, and "
                    f"{reference.producer} makes {came or 'no type'}; connect outputs of that type."
                )
                yield Violation(task.id, "artifact-type", text)


def artifact_schemas(package: Package) -> Iterator[Violation]:
    """Artifacts whose type has no name."""
    for name, component in package.spec.components.items():
        for definitions in (component.input_definitions, component.output_definitions):
            for artifact, definition in definitions.artifacts.items():
                if not title(definition.artifact_type):
                    text = f"Artifact {artifact!r} of {name} has no type; give its schema a title."
                    yield Violation(package.step_of_component(name), "artifact-schema", text)


def title(artifact_type: Message) -> str:
    """The name of an artifact's type, of an ArtifactTypeSchema; empty if there is none."""
    if artifact_type.schema_title:
        return str(artifact_type.schema_title)
    try:
        schema = yaml.safe_load(artifact_type.instance_schema)
    except yaml.YAMLError:
        return ""
    return str(schema.get("title") or "") if isinstance(schema, dict) else ""
