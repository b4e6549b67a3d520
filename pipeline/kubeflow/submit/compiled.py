"""The compiled package, as far as submitting it needs to know."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from components.errors import PipelineStop


@dataclass(frozen=True)
class Compiled:
    """A package.

    Attributes:
      path: The YAML file.
      name: The pipeline's name in it; artifacts lie under it.
      digest: Twelve hexadecimal digits of the SHA-256 of its bytes.
      steps: The ids of all tasks that run something, those inside conditions too.
      parameters: The type of each parameter that a run may be given.
    """

    path: Path
    name: str
    digest: str
    steps: tuple[str, ...]
    parameters: dict[str, str]

    def version_name(self) -> str:
        """When, and what: `20261123-092939-3f2a9c1b2d4e`, valid as a Kubernetes object's too."""
        return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{self.digest}"


def read(path: Path) -> Compiled:
    """Reads a package.

    Raises:
        PipelineStop: If it isn't there, or isn't one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PipelineStop(
            f"There is no package at {path} ({error.strerror}): make it with 'make compile'."
        ) from error
    try:
        spec = next(iter(yaml.load_all(data, Loader=yaml.CSafeLoader)))
        components, root = spec.get("components", {}), spec["root"]
        inputs = root.get("inputDefinitions", {}).get("parameters", {})
        return Compiled(
            path,
            spec["pipelineInfo"]["name"],
            hashlib.sha256(data).hexdigest()[:12],
            tuple(_steps(root, components)),
            {name: str(given.get("parameterType")) for name, given in inputs.items()},
        )
    except (yaml.YAMLError, StopIteration, AttributeError, KeyError, TypeError) as error:
        raise PipelineStop(
            f"{path} is not a compiled pipeline: make it anew with 'make compile'."
        ) from error


def _steps(component: dict[str, Any], components: dict[str, Any]) -> Iterator[str]:
    for task, described in component["dag"]["tasks"].items():
        inner = components[described["componentRef"]["name"]]
        if "dag" in inner:
            yield from _steps(inner, components)
        else:
            yield task
