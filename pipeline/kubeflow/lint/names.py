"""Names, versions and ids."""

import re
from collections.abc import Iterator

from pipeline.kubeflow.lint.reading import Package
from pipeline.kubeflow.lint.rules import Violation

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A label of RFC 1123, as Kubernetes takes it."""

_PIPELINE = re.compile(r"[a-z0-9][-a-z0-9]{0,127}")


def schema_version(package: Package) -> Iterator[Violation]:
    """The one schema version that open-source KFP takes."""
    if (version := package.spec.schema_version) != "2.1.0":
        text = f"schemaVersion is {version!r}; compile for '2.1.0'."
        yield Violation("", "schema-version", text)


def pipeline_name(package: Package) -> Iterator[Violation]:
    """The pipeline's name."""
    if not _PIPELINE.fullmatch(name := package.spec.pipeline_info.name):
        text = (
            f"The pipeline's name is {name!r}; use at most 128 lower-case letters, digits and "
            "hyphens, no hyphen first."
        )
        yield Violation("", "pipeline-name", text)


def pipeline_root(package: Package) -> Iterator[Violation]:
    """A pipeline root in the package."""
    if root := package.spec.default_pipeline_root:
        text = f"defaultPipelineRoot is {root!r}; delete it and pass pipeline_root at submission."
        yield Violation("", "pipeline-root", text)


def tasks(package: Package) -> Iterator[Violation]:
    """Ids of tasks, and the names that repeat them."""
    for task in package.tasks:
        if not LABEL.fullmatch(task.id):
            text = (
                f"The task's id is {task.id!r}; use at most 63 lower-case letters, digits and "
                "hyphens, no hyphen first or last."
            )
            yield Violation(task.id, "task-id", text)
        if (name := task.spec.task_info.name) != task.id:
            text = f"taskInfo.name is {name!r}; write the task's id, {task.id!r}."
            yield Violation(task.id, "task-name", text)


def prefixes(package: Package) -> Iterator[Violation]:
    """The names of components and executors."""
    for name in package.spec.components:
        if not name.startswith("comp-"):
            text = f"The component's name is {name!r}; begin it with 'comp-'."
            yield Violation(package.step_of_component(name), "name-prefix", text)
    for label in package.executors:
        if not label.startswith("exec-"):
            text = f"The executor's label is {label!r}; begin it with 'exec-'."
            yield Violation(package.step_of_executor(label), "name-prefix", text)


def reserved(package: Package) -> Iterator[Violation]:
    """Outputs that the backend makes itself."""
    for name, component in package.spec.components.items():
        if "executor-logs" in component.output_definitions.artifacts:
            text = "An output is called 'executor-logs', as is the backend's own; rename it."
            yield Violation(package.step_of_component(name), "reserved-output", text)
