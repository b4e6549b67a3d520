"""Tasks that bring in an artifact from outside."""

from collections.abc import Iterator

from pipeline.kubeflow.lint.inputs import title
from pipeline.kubeflow.lint.reading import Message, Package, Task
from pipeline.kubeflow.lint.rules import Violation

_SCHEMES = ("minio://", "s3://", "gs://", "oci://")


def condition(package: Package) -> Iterator[Violation]:
    """Importers that should run only sometimes."""
    for task, _ in _importers(package):
        if task.spec.trigger_policy.condition:
            text = "It is an importer with a condition; put the condition on the tasks behind it."
            yield Violation(task.id, "importer-condition", text)


def uri(package: Package) -> Iterator[Violation]:
    """Importers whose artifact can't be found."""
    for task, importer in _importers(package):
        if problem := _problem(task, importer.artifact_uri):
            text = f"Its artifactUri {problem}; use a parameter of the pipeline or an object's URI."
            yield Violation(task.id, "importer-uri", text)


def schema(package: Package) -> Iterator[Violation]:
    """Importers that don't say what they bring."""
    for task, importer in _importers(package):
        if not title(importer.type_schema):
            text = "Its typeSchema names no type; give it a title."
            yield Violation(task.id, "artifact-schema", text)


def _problem(task: Task, source: Message) -> str | None:
    """A parameter is looked up among the pipeline's, whatever the task's input is."""
    kind = source.WhichOneof("value")
    if kind == "constant":
        found = source.constant.string_value
        return None if found.startswith(_SCHEMES) else f"is {found!r}"
    if kind != "runtime_parameter":
        return "is missing"
    name = source.runtime_parameter
    given = task.spec.inputs.parameters
    if name not in given or not given[name].component_input_parameter:
        return f"is input {name!r}, which is no parameter of the pipeline"
    return None


def _importers(package: Package) -> Iterator[tuple[Task, Message]]:
    for task in package.tasks:
        executor = package.executor(task)
        if executor is not None and executor.WhichOneof("spec") == "importer":
            yield task, executor.importer
