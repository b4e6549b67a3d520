"""Parts of the package that the backend passes as one command-line argument."""

import json
from collections.abc import Iterator

from google.protobuf.json_format import MessageToDict

from pipeline.kubeflow.lint.reading import Message, Package
from pipeline.kubeflow.lint.rules import Violation

_LIMIT = 100 * 1024
"""Bytes. Linux takes 128 KiB; what the driver adds has to fit, too."""


def too_large(package: Package) -> Iterator[Violation]:
    """Tasks, components, containers and Kubernetes settings above the limit."""
    parts = [("", "The root component", package.spec.root)]
    parts += [(task.id, "The task", task.spec) for task in package.tasks]
    for name, component in package.spec.components.items():
        parts.append((package.step_of_component(name), f"Component {name}", component))
    for label, executor in (*package.executors.items(), *package.configs.items()):
        parts.append((package.step_of_executor(label), f"Executor {label}", executor))
    for step, where, message in parts:
        if (size := json_bytes(message)) > _LIMIT:
            text = (
                f"{where} is {size} bytes of JSON, of {_LIMIT} allowed; put its largest values "
                "into files that the image or a volume holds."
            )
            yield Violation(step, "too-large", text)


def json_bytes(message: Message) -> int:
    """A message's size as the backend writes it: Go escapes <, > and & as six bytes each."""
    text = json.dumps(MessageToDict(message), ensure_ascii=False, separators=(",", ":"))
    return len(text.encode()) + 5 * sum(map(text.count, "<>&"))
