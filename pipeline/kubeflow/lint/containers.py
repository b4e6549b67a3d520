"""What the executors run."""

import re
from collections.abc import Iterator
from itertools import combinations

from pipeline.kubeflow.lint.reading import Message, Package
from pipeline.kubeflow.lint.rules import Violation

_SECRET = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|KEY)(_|$)")
_WHERE_ONE_IS = re.compile(r"_(FILE|PATH|NAME)$")


def kinds(package: Package) -> Iterator[Violation]:
    """Executors other than containers and importers."""
    for label, executor in package.executors.items():
        if (kind := executor.WhichOneof("spec")) not in ("container", "importer"):
            text = f"Executor {label} is {kind or 'empty'}; make it a container or an importer."
            yield Violation(package.step_of_executor(label), "executor-kind", text)


def command(package: Package) -> Iterator[Violation]:
    """Containers that say nothing to run."""
    for step, label, container in _containers(package):
        if not container.command and not container.args:
            text = f"Executor {label} has neither command nor args; write the command to run."
            yield Violation(step, "no-command", text)


def image(package: Package) -> Iterator[Violation]:
    """Containers without an image."""
    for step, label, container in _containers(package):
        if not container.image.strip():
            yield Violation(step, "no-image", f"Executor {label} has no image; name one.")


def pre_cache_check(package: Package) -> Iterator[Violation]:
    """What Vertex AI runs before it looks into its cache."""
    for step, label, container in _containers(package):
        if container.lifecycle.HasField("pre_cache_check"):
            text = f"Executor {label} has a lifecycle.preCacheCheck; do its work in the step."
            yield Violation(step, "pre-cache-check", text)


def secrets(package: Package) -> Iterator[Violation]:
    """Secrets written into the package."""
    for step, _, container in _containers(package):
        for variable in container.env:
            name = variable.name.upper()
            if variable.value and _SECRET.search(name) and not _WHERE_ONE_IS.search(name):
                text = (
                    f"Environment variable {variable.name} looks like a secret, with its value in "
                    "the package; take it from a Kubernetes Secret (secretAsEnv)."
                )
                yield Violation(step, "secret-in-env", text)


def twins(package: Package) -> Iterator[Violation]:
    """Different components whose containers are the same."""
    for (one, same), (other, container) in combinations(package.container_tasks(), 2):
        if same == container and not _is_same(one.component, other.component):
            text = (
                f"Its container is that of {one.id}, but its component isn't, and KFP would give "
                "both the inputs and outputs of one; tell the containers apart by an argument."
            )
            yield Violation(other.id, "twin-containers", text)


def _is_same(one: Message, other: Message) -> bool:
    """Whether two components differ at most in their executor's label."""
    copy = type(one)()
    copy.CopyFrom(other)
    copy.executor_label = one.executor_label
    return bool(copy == one)


def _containers(package: Package) -> Iterator[tuple[str, str, Message]]:
    """The step, the label and the PipelineContainerSpec of each executor that has one."""
    for label, executor in package.executors.items():
        if executor.WhichOneof("spec") == "container":
            yield package.step_of_executor(label), label, executor.container
