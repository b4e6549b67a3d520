"""Parameters: their types and defaults."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from kfp.pipeline_spec import pipeline_spec_pb2 as pipelines

from pipeline.kubeflow.lint.reading import Message, Package
from pipeline.kubeflow.lint.rules import Violation

_VALUES: dict[str, type | tuple[type, ...]] = {
    "STRING": str,
    "NUMBER_DOUBLE": (int, float),
    "NUMBER_INTEGER": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


def type_name(parameter: Message) -> str:
    """The type of a ParameterSpec of inputs or outputs, as YAML has it."""
    return str(pipelines.ParameterType.ParameterTypeEnum.Name(parameter.parameter_type))


def value_fits(value: Any, wanted: str) -> bool:
    """Whether a value from YAML is of a parameter's type."""
    if wanted not in _VALUES:
        return True
    if wanted == "NUMBER_INTEGER" and isinstance(value, float) and not value.is_integer():
        return False
    is_bool = isinstance(value, bool)
    return isinstance(value, _VALUES[wanted]) and is_bool == (wanted == "BOOLEAN")


def root(package: Package) -> Iterator[Violation]:
    """Parameters of the pipeline that each run would have to give."""
    for name, parameter in package.spec.root.input_definitions.parameters.items():
        if not parameter.HasField("default_value") and not parameter.is_optional:
            text = f"Parameter {name!r} has no default and is not optional; give it a default."
            yield Violation("", "root-parameter", text)


def defaults(package: Package) -> Iterator[Violation]:
    """Defaults of another type than their parameter."""
    for step, owner, name, parameter in _parameters(package):
        if parameter.HasField("default_value"):
            value, wanted = MessageToDict(parameter.default_value), type_name(parameter)
            if not value_fits(value, wanted):
                text = (
                    f"Parameter {name!r} of {owner} is {wanted}, its default {value!r}; mend one."
                )
                yield Violation(step, "default-type", text)


def types(package: Package) -> Iterator[Violation]:
    """Parameters without a type."""
    for step, owner, name, parameter in _parameters(package):
        if not parameter.parameter_type:
            text = f"Parameter {name!r} of {owner} has no parameterType; write one."
            yield Violation(step, "untyped-parameter", text)


def _parameters(package: Package) -> Iterator[tuple[str, str, str, Message]]:
    """The step, the owner, the name and the ParameterSpec of all inputs."""
    owners = [("", "the pipeline", package.spec.root)]
    for name, component in package.spec.components.items():
        owners.append((package.step_of_component(name), name, component))
    for step, owner, component in owners:
        for name, parameter in component.input_definitions.parameters.items():
            yield step, owner, name, parameter
