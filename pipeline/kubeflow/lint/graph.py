"""The graph: components and executors that are there and used, and no cycle."""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from pipeline.kubeflow.lint.reading import Package
from pipeline.kubeflow.lint.references import upstream
from pipeline.kubeflow.lint.rules import Violation


def components(package: Package) -> Iterator[Violation]:
    """Tasks without their component."""
    for task in package.tasks:
        if task.component is None:
            name = task.spec.component_ref.name
            text = f"componentRef names {name!r}, which the package lacks; add the component."
            yield Violation(task.id, "unknown-component", text)


def executors(package: Package) -> Iterator[Violation]:
    """Components without their executor."""
    for name, component in package.spec.components.items():
        label = component.executor_label
        if not component.HasField("dag") and label not in package.executors:
            text = f"{name} names executor {label!r}, which the package lacks; add the executor."
            yield Violation(package.step_of_component(name), "unknown-executor", text)


def unused(package: Package) -> Iterator[Violation]:
    """Components and executors that no task needs."""
    used = {task.spec.component_ref.name for task in package.tasks}
    for name in sorted(set(package.spec.components) - used):
        yield Violation("", "unused", f"No task uses component {name!r}; delete it.")
    labels = {component.executor_label for component in package.spec.components.values()}
    for label in sorted(set(package.executors) - labels):
        yield Violation("", "unused", f"No component uses executor {label!r}; delete it.")


def cycles(package: Package) -> Iterator[Violation]:
    """Tasks that wait for themselves."""
    for dag in package.dags:
        waits = TopologicalSorter[str]()
        for name, task in dag.tasks.items():
            waits.add(name, *upstream(task), *task.dependent_tasks)
        try:
            waits.prepare()
        except CycleError as error:
            path = error.args[1]
            text = f"The tasks wait for each other: {' -> '.join(path)}; break the circle."
            yield Violation(min(path), "cycle", text)
