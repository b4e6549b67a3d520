"""CPU, memory and accelerators of a step."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from pipeline.kubeflow.lint.reading import Message, Package
from pipeline.kubeflow.lint.rules import Violation

VERTEX = {
    "cpuLimit": "resourceCpuLimit",
    "memoryLimit": "resourceMemoryLimit",
    "cpuRequest": "resourceCpuRequest",
    "memoryRequest": "resourceMemoryRequest",
    "accelerator.type": "accelerator.resourceType",
    "accelerator.count": "accelerator.resourceCount",
}
"""Vertex AI's fields, and those of KFP for the same."""

_QUANTITIES = [name for name in VERTEX.values() if "." not in name]
_QUANTITY = re.compile(r"\+?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?\d+)?")
"""https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/."""
_TPU = "google.com/tpu"
_TPU_LABELS = ("cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology")


def deprecated(package: Package) -> Iterator[Violation]:
    """The numbers that Vertex AI reads, alone."""
    for task, container in package.container_tasks():
        resources = container.resources
        for old, new in VERTEX.items():
            if field(resources, old) and not field(resources, new):
                text = f"resources.{old} is Vertex AI's; write {new}, as a string."
                yield Violation(task.id, "resource-field", text)


def quantities(package: Package) -> Iterator[Violation]:
    """Quantities that Kubernetes can't read."""
    for task, container in package.container_tasks():
        given = {f"resources.{k}": v for k, v in _given(container.resources).items()}
        config = package.config(task)
        for volume in config.empty_dir_mounts:
            given[f"the size limit of {volume.volume_name}"] = volume.size_limit or "0"
        for volume in config.generic_ephemeral_volume:
            given[f"the size of {volume.volume_name}"] = volume.size
        for where, value in given.items():
            if not _QUANTITY.fullmatch(value):
                text = f"{where} is {value!r}; write a Kubernetes quantity: '2', '500m', '8Gi'."
                yield Violation(task.id, "quantity", text)


def requests(package: Package) -> Iterator[Violation]:
    """Requests above their limit."""
    for task, container in package.container_tasks():
        given = {k: v for k, v in _given(container.resources).items() if _QUANTITY.fullmatch(v)}
        for what in ("Cpu", "Memory"):
            request = given.get(f"resource{what}Request", "0")
            limit = given.get(f"resource{what}Limit")
            if limit and _amount(request) > _amount(limit):
                text = f"resource{what}Request {request} is above the limit, {limit}; lower it."
                yield Violation(task.id, "request-above-limit", text)


def accelerators(package: Package) -> Iterator[Violation]:
    """Accelerators that the pod wouldn't get."""
    for task, container in package.container_tasks():
        found = container.resources.accelerator
        kind, count = found.resource_type, found.resource_count
        if not kind + count or "{{" in kind + count:
            continue
        if "/" not in kind or not re.fullmatch("[1-9][0-9]*", count):
            text = (
                f"The accelerator is {kind or 'no type'!r}, {count or 'no count'!r}; write a "
                "resourceType such as nvidia.com/gpu and a whole number as resourceCount."
            )
            yield Violation(task.id, "accelerator", text)


def tpu_nodes(package: Package) -> Iterator[Violation]:
    """TPUs without the labels by which GKE finds their nodes."""
    for task, container in package.container_tasks():
        if container.resources.accelerator.resource_type != _TPU:
            continue
        selector = package.config(task).node_selector
        missing = [label for label in _TPU_LABELS if label not in selector.labels]
        if missing and not selector.HasField("node_selector_json"):
            text = f"It wants {_TPU}; add {' and '.join(missing)} to its nodeSelector."
            yield Violation(task.id, "tpu-node", text)


def _given(resources: Message) -> dict[str, str]:
    """The quantities that are written out, by field."""
    found = {name: str(field(resources, name)) for name in _QUANTITIES}
    return {name: value for name, value in found.items() if value and "{{" not in value}


def field(message: Message, path: str) -> Any:
    """A field by its name in YAML, with dots for fields inside fields."""
    for name in path.split("."):
        found = next(f for f in message.DESCRIPTOR.fields if f.json_name == name)
        message = getattr(message, found.name)
    return message


def _amount(quantity: str) -> Decimal:
    return Decimal(parse_quantity(quantity))
