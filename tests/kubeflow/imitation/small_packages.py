"""Small packages written by hand, for tests that need a few steps and no compiler."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.kubeflow.imitation.package import Json

Parameter = tuple[str, Json]
"""A parameter's type and where it comes from."""

MODEL = {"instanceSchema": "title: tfx.Model\ntype: object\n"}

_PRELUDE = """
import json, os, sys
from pathlib import Path
given = json.loads(sys.argv[1])

def uri(name, side="outputs"):
    return given[side]["artifacts"][name]["artifacts"][0]["uri"]

def path(name, side="outputs"):
    return Path("/" + uri(name, side).replace("gs://", "gcs://").replace("://", "/"))

def write(name, text, file="file"):
    path(name).mkdir(exist_ok=True)
    (path(name) / file).write_text(text)

def tell(name, **said):
    told = json.dumps({"artifacts": {name: {"artifacts": [said]}}})
    Path(given["outputs"]["outputFile"]).write_text(told)

"""


@dataclass(frozen=True)
class Step:
    """A task with a component and an executor of its own.

    Attributes:
        code: Python for it; knows `given`, the executor input, and the functions above.
        command: Instead of Python.
        parameters: By name.
        artifacts: Producing task and output, by name.
        outputs: Names of artifacts.
        output_parameters: Types, by name.
        task: More of its task's spec.
        container: More of its container's.
        kubernetes: Its settings in the platform document.
        executor: Instead of a container.
    """

    code: str = ""
    command: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    artifacts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    output_parameters: Mapping[str, str] = field(default_factory=dict)
    task: Json = field(default_factory=dict)
    container: Json = field(default_factory=dict)
    kubernetes: Json = field(default_factory=dict)
    executor: Json = field(default_factory=dict)

    def spec(self, name: str) -> Json:
        """Its task."""
        artifacts = {
            key: {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": output}}
            for key, (task, output) in self.artifacts.items()
        }
        parameters = {key: source for key, (_, source) in self.parameters.items()}
        inputs = {"parameters": parameters, "artifacts": artifacts}
        component = {"name": f"comp-{name}"}
        return {
            "taskInfo": {"name": name},
            "componentRef": component,
            "inputs": inputs,
            **self.task,
        }

    def component(self, name: str) -> Json:
        """Its component."""
        types = {key: {"parameterType": kind} for key, (kind, _) in self.parameters.items()}
        told = {key: {"parameterType": kind} for key, kind in self.output_parameters.items()}
        found = {
            "inputDefinitions": _definitions(types, self.artifacts),
            "outputDefinitions": _definitions(told, self.outputs),
        }
        stated = {kind: definitions for kind, definitions in found.items() if definitions}
        return {"executorLabel": f"exec-{name}", **stated}

    def how(self) -> Json:
        """Its executor."""
        command = list(self.command) or ["python", "-c", _PRELUDE + self.code, "{{$}}"]
        return self.executor or {
            "container": {"image": "image", "command": command, **self.container}
        }


def constant(value: Any, kind: str = "STRING") -> Parameter:
    """A parameter that is known at compilation."""
    return kind, {"runtimeValue": {"constant": value}}


def submitted(name: str, kind: str = "STRING") -> Parameter:
    """A parameter of the run."""
    return kind, {"componentInputParameter": name}


def told(task: str, name: str, kind: str = "STRING") -> Parameter:
    """An output parameter of another task."""
    return kind, {"taskOutputParameter": {"producerTask": task, "outputParameterKey": name}}


def _definitions(parameters: Json, artifacts: Iterable[str]) -> Json:
    found = {
        "parameters": parameters,
        "artifacts": {name: {"artifactType": MODEL} for name in artifacts},
    }
    return {kind: definitions for kind, definitions in found.items() if definitions}


def write(
    path: Path,
    steps: Mapping[str, Step],
    parameters: Mapping[str, Json] | None = None,
    **spec: Any,
) -> Path:
    """Writes a package and returns its path.

    Args:
        path: Where.
        steps: By the task's name.
        parameters: The definitions of the run's parameters.
        **spec: More of the pipeline's spec.
    """
    pipeline = {
        "pipelineInfo": {"name": "small"},
        "schemaVersion": "2.1.0",
        "root": {
            "dag": {"tasks": {name: step.spec(name) for name, step in steps.items()}},
            "inputDefinitions": {"parameters": dict(parameters or {})},
        },
        "components": {f"comp-{name}": step.component(name) for name, step in steps.items()},
        "deploymentSpec": {
            "executors": {f"exec-{name}": step.how() for name, step in steps.items()}
        },
        **spec,
    }
    settings = {f"exec-{name}": step.kubernetes for name, step in steps.items() if step.kubernetes}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": settings}}}}
    path.write_text(yaml.safe_dump_all([pipeline, platform] if settings else [pipeline]))
    return path
