"""What the conditions of tasks read."""

import re
from collections.abc import Iterator

from pipeline.kubeflow.lint.reading import Package
from pipeline.kubeflow.lint.references import output, outputs_used
from pipeline.kubeflow.lint.rules import Violation

_INPUT = re.compile(r"""inputs\.(\w+)(?:\[(['"])(?P<key>.+?)\2\]|\.(?P<field>\w+))""")
_METADATA = re.compile(
    r"""inputs\.artifacts\[(['"])(?P<input>.+?)\1\]\.artifacts\[0\]"""
    r"""\.metadata\[(['"])(?P<key>.+?)\3\]"""
)
_READABLE = {"parameter_values": "parameters", "artifacts": "artifacts"}


def inputs(package: Package) -> Iterator[Violation]:
    """Conditions on inputs that the task doesn't have."""
    for task in package.tasks:
        for match in _INPUT.finditer(task.spec.trigger_policy.condition):
            kind, name = match[1], match["key"] or match["field"]
            given = getattr(task.spec.inputs, _READABLE.get(kind, ""), {})
            if name not in given:
                text = (
                    f"Its condition reads {match[0]}; give the task that input, and read it as "
                    f"{' or '.join(_READABLE)}."
                )
                yield Violation(task.id, "condition-input", text)


def metadata(package: Package) -> Iterator[Violation]:
    """Conditions on metadata that the producer need not write."""
    for task in package.tasks:
        sources = {r.input: r for r in outputs_used(task.spec) if r.kind == "artifacts"}
        for match in _METADATA.finditer(task.spec.trigger_policy.condition):
            reference = sources.get(match["input"])
            source = output(package, task.dag, reference) if reference else None
            if reference and source is not None and match["key"] not in source.metadata:
                text = (
                    f"Its condition reads {match['key']!r} of {match['input']!r}; give that a "
                    f"first value in the metadata of {reference.producer}'s output."
                )
                yield Violation(task.id, "condition-metadata", text)
