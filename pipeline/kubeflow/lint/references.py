"""What a task's inputs refer to."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict

from pipeline.kubeflow.lint.reading import Dag, Message, Package, Task
from pipeline.kubeflow.lint.rules import Violation


class Reference(NamedTuple):
    """An input that is another task's output.

    Attributes:
      input: the input's name.
      kind: "artifacts" or "parameters".
      producer: the other task's id.
      output: the output's name.
    """

    input: str
    kind: str
    producer: str
    output: str


def outputs_used(task: Message) -> Iterator[Reference]:
    """The outputs of other tasks that a PipelineTaskSpec takes in."""
    for name, given in task.inputs.artifacts.items():
        if given.WhichOneof("kind") == "task_output_artifact":
            source = given.task_output_artifact
            yield Reference(name, "artifacts", source.producer_task, source.output_artifact_key)
    for name, given in task.inputs.parameters.items():
        if given.WhichOneof("kind") == "task_output_parameter":
            source = given.task_output_parameter
            yield Reference(name, "parameters", source.producer_task, source.output_parameter_key)


def upstream(task: Message) -> set[str]:
    """The ids of the tasks whose outputs a PipelineTaskSpec takes in."""
    return {reference.producer for reference in outputs_used(task)}


def output(package: Package, dag: Dag, reference: Reference) -> Message | None:
    """The definition of the output that is referred to, if it is there."""
    if reference.producer not in dag.tasks:
        return None
    name = dag.tasks[reference.producer].component_ref.name
    if name not in package.spec.components:
        return None
    outputs = getattr(package.spec.components[name].output_definitions, reference.kind)
    return outputs.get(reference.output)


def producers(package: Package) -> Iterator[Violation]:
    """References to tasks, and to outputs, that are not there."""
    for task in package.tasks:
        for name in sorted(upstream(task.spec) | set(task.spec.dependent_tasks)):
            if name not in task.dag.tasks:
                text = f"It refers to task {name!r}, which its DAG lacks; correct the id."
                yield Violation(task.id, "unknown-task", text)
        for reference in outputs_used(task.spec):
            if reference.producer in task.dag.tasks and not output(package, task.dag, reference):
                text = (
                    f"Input {reference.input!r} takes {reference.output!r} of task "
                    f"{reference.producer!r}, which has no such output among its "
                    f"{reference.kind}; correct the name."
                )
                yield Violation(task.id, "unknown-output", text)


def dependencies(package: Package) -> Iterator[Violation]:
    """Producers that are not among the tasks waited for."""
    for task in package.tasks:
        for name in sorted(upstream(task.spec) - set(task.spec.dependent_tasks)):
            if name in task.dag.tasks:
                text = f"It takes an output of {name!r}; add that to dependentTasks."
                yield Violation(task.id, "dependency-missing", text)


def component_inputs(package: Package) -> Iterator[Violation]:
    """References to inputs that the DAG around the task doesn't have."""
    for task in package.tasks:
        declared = task.dag.owner.input_definitions
        for name, given in task.spec.inputs.parameters.items():
            source = given.component_input_parameter
            if given.WhichOneof("kind") == "component_input_parameter" and (
                source not in declared.parameters
            ):
                yield _unknown_input(task, name, f"parameter {source!r}")
        for name, given in task.spec.inputs.artifacts.items():
            source = given.component_input_artifact
            # A run can't be given artifacts, so the root has none.
            if given.WhichOneof("kind") == "component_input_artifact" and (
                task.dag.is_root or source not in declared.artifacts
            ):
                yield _unknown_input(task, name, f"artifact {source!r}")


def _unknown_input(task: Task, name: str, source: str) -> Violation:
    owner = "the pipeline" if task.dag.is_root else "the component around it"
    text = f"Input {name!r} takes {source} of {owner}, which has none; declare or correct it."
    return Violation(task.id, "unknown-component-input", text)


def runtime_parameters(package: Package) -> Iterator[Violation]:
    """The kind of reference that only importers understand."""
    for task in package.tasks:
        for name, given in task.spec.inputs.parameters.items():
            if source := given.runtime_value.runtime_parameter:
                text = (
                    f"Input {name!r} is runtimeParameter {source!r}; write componentInputParameter."
                )
                yield Violation(task.id, "runtime-parameter", text)


def constant_values(package: Package) -> Iterator[Violation]:
    """Constants of the form of schema version 2.0."""
    parts = [(task.id, "The task", task.spec) for task in package.tasks]
    for label, executor in package.executors.items():
        parts.append((package.step_of_executor(label), f"Executor {label}", executor))
    for name, component in package.spec.components.items():
        step = package.step_of_component(name)
        parts.append((step, f"Component {name}", component.output_definitions))
    for label, config in package.configs.items():
        where = f"The platform document's {label}"
        parts.append((package.step_of_executor(label), where, config))
    for step, where, message in parts:
        if _has_constant_value(MessageToDict(message)):
            yield Violation(step, "constant-value", f"{where} has a constantValue; write constant.")


def _has_constant_value(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_constant_value, value))
    if not isinstance(value, dict):
        return False
    return "constantValue" in value or any(
        _has_constant_value(inner) for name, inner in value.items() if name != "constant"
    )
