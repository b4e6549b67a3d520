"""A compiled package: KFP's pipeline spec 2.1.0, and what Kubernetes is told about each step."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]


@dataclass(frozen=True)
class Package:
    """Two YAML documents, as plain values.

    Attributes:
      spec: the PipelineSpec.
      executors: the KubernetesExecutorConfig of each executor that has one, by label.
    """

    spec: Document
    executors: Document = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def platform(self) -> Document | None:
        """The Kubernetes platform document."""
        if not self.executors:
            return None
        return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": self.executors}}}}

    def text(self) -> str:
        """The package as YAML, the same bytes for the same content."""
        documents = [self.spec, *([self.platform] if self.platform else [])]
        return yaml.dump_all(documents, Dumper=_Plain, sort_keys=True, width=100)


class _Plain(yaml.SafeDumper):
    """Writes for people: what occurs twice twice, and texts of several lines as they are."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never an anchor."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Several lines as a block."""
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Plain.add_representer(str, _Plain.represent_str)


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
