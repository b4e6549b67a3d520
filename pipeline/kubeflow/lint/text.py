"""Text that Kubernetes, Argo or KFP replace on its way into the container."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict

from pipeline.kubeflow.lint.reading import Message, Package, Task
from pipeline.kubeflow.lint.rules import Violation

OF_THE_JOB = frozenset(
    f"{{{{$.pipeline_{name}}}}}"
    for name in (
        "job_name",
        "job_resource_name",
        "job_uuid",
        "job_create_time_utc",
        "job_schedule_time_utc",
        "task_name",
        "task_uuid",
    )
)
"""The driver replaces a task's constant that is one of these and nothing else; in a command it
leaves them as they are."""

_DOLLARS = re.compile(r"\$\$|\$\([-._a-zA-Z][-._a-zA-Z0-9]*\)")
"""A dollar sign escaped, and a variable; Kubernetes leaves the shell's `$(command x)` alone."""

Part = tuple[str, str, str, Collection[str]]
"""The step, where it stands, the text, and the placeholders that are replaced there."""


def rewritten(package: Package) -> Iterator[Violation]:
    """Dollar signs that Kubernetes takes for its own."""
    for step, where, text, _ in _texts(package):
        if match := _DOLLARS.search(text):
            problem = (
                f"{where} has {match[0]!r} in {_around(text, match[0])!r}; write it otherwise."
            )
            yield Violation(step, "rewritten-text", problem)


def placeholders(package: Package) -> Iterator[Violation]:
    """Double braces that are no placeholder of KFP in that place."""
    for step, where, text, known in _texts(package):
        rest = text
        for placeholder in known:
            rest = rest.replace(placeholder, "")
        if "{{" in rest:
            problem = (
                f"{where} has {_around(rest, '{{')!r}, which KFP doesn't replace there; name what "
                "the task has, or write it otherwise."
            )
            yield Violation(step, "placeholder", problem)


def _around(text: str, sign: str) -> str:
    start = text.index(sign)
    return text[max(start - 10, 0) : start + 50]


def _texts(package: Package) -> Iterator[Part]:
    for task in package.tasks:
        yield from _of_task(task)
    for task, container in package.container_tasks():
        yield from _of_container(task, container)
    owners = [("", "The pipeline", package.spec.root)]
    for name, component in package.spec.components.items():
        owners.append((package.step_of_component(name), f"Component {name}", component))
    for step, where, component in owners:
        for definitions in (component.input_definitions, component.output_definitions):
            for text in _strings(MessageToDict(definitions)):
                yield step, where, text, ()
    for label, executor in package.executors.items():
        for text in _strings(MessageToDict(executor.importer)):
            yield package.step_of_executor(label), f"Importer {label}", text, ()
    for label, config in package.configs.items():
        for text in _strings(MessageToDict(config)):
            where = f"The platform document's {label}"
            yield package.step_of_executor(label), where, text, _whole(text)


def _of_task(task: Task) -> Iterator[Part]:
    """KFP itself writes inputs into constants; what reads the constant replaces them."""
    known = _inputs(task)
    for name, given in task.spec.inputs.parameters.items():
        for text in _strings(MessageToDict(given.runtime_value)):
            yield task.id, f"Input {name!r}", text, _whole(text) or known
    for text in _strings(MessageToDict(task.spec.trigger_policy)):
        yield task.id, "Its condition", text, ()


def _of_container(task: Task, container: Message) -> Iterator[Part]:
    inputs = _inputs(task)
    known = {"{{$}}", *inputs, *_artifacts("inputs", task.spec.inputs.artifacts)}
    if task.component:
        outputs = task.component.output_definitions
        known |= _artifacts("outputs", outputs.artifacts)
        known |= {f"{{{{$.outputs.parameters['{n}'].output_file}}}}" for n in outputs.parameters}
    for text in (*container.command, *container.args):
        yield task.id, "Its command", text, known | _optional(task, text)
    for variable in container.env:
        yield task.id, f"Environment variable {variable.name}", variable.value, ()
    for text in (container.image, *_strings(MessageToDict(container.resources))):
        yield task.id, "Its image or resources", text, inputs


def _optional(task: Task, text: str) -> set[str]:
    """What KFP's form for an optional input may name: the driver takes it apart."""
    if task.component is None or not text.strip().startswith('{"IfPresent":'):
        return set()
    return _parameters(task.component.input_definitions.parameters)


def _inputs(task: Task) -> set[str]:
    return _parameters(task.spec.inputs.parameters)


def _parameters(names: Collection[str]) -> set[str]:
    return {f"{{{{$.inputs.parameters['{name}']}}}}" for name in names}


def _artifacts(side: str, names: Collection[str]) -> set[str]:
    fields = ("uri", "path")
    return {f"{{{{$.{side}.artifacts['{name}'].{field}}}}}" for name in names for field in fields}


def _whole(text: str) -> Collection[str]:
    return OF_THE_JOB if text in OF_THE_JOB else ()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
