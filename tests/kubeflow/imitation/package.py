"""A compiled package as the API server reads it: strictly here, with open eyes there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

Json = dict[str, Any]


class Refused(Exception):
    """The API server's answer to a package or to arguments that it doesn't take."""


@dataclass(frozen=True)
class Package:
    """The parts of a package, as JSON in protobuf's canonical form: camelCase, 6 and not 6.0.

    Attributes:
        name: The pipeline's.
        root: The root component.
        components: The others, by name.
        executors: Containers and importers, by label.
        kubernetes: Kubernetes' settings of an executor, by label.
    """

    name: str
    root: Json
    components: dict[str, Json]
    executors: dict[str, Json]
    kubernetes: dict[str, Json]


def read(path: Path) -> Package:
    """Reads a package.

    Raises:
        Refused: If the server would refuse to take it.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise Refused(f"unknown template format: {path.name}")
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    specs = [document for document in documents if "pipelineInfo" in document]
    if len(specs) != 1:
        raise Refused(
            "multiple pipeline specs provided" if specs else "no pipeline spec is provided"
        )
    spec = _strict(specs[0], pipeline_spec_pb2.PipelineSpec(), "invalid v2 pipeline spec")
    if (version := spec.get("schemaVersion")) != "2.1.0":
        raise Refused(
            "KFP only supports schema version 2.1.0, but the pipeline spec has version "
            + str(version)
        )
    return Package(
        name=spec.get("pipelineInfo", {}).get("name", ""),
        root=spec.get("root", {}),
        components=spec.get("components", {}),
        executors=_executors(spec.get("deploymentSpec", {})),
        kubernetes=_kubernetes([document for document in documents if document not in specs]),
    )


def _executors(deployment: Json) -> dict[str, Json]:
    """Unknown fields of an executor vanish without a word, as they do on the server."""
    config = pipeline_spec_pb2.PipelineDeploymentConfig()
    json_format.ParseDict(deployment, config, ignore_unknown_fields=True)
    found: dict[str, Json] = json_format.MessageToDict(config).get("executors", {})
    return found


def _kubernetes(documents: list[Json]) -> dict[str, Json]:
    """A document that is no platform spec is ignored; fields unknown to Kubernetes are refused."""
    for document in documents:
        try:
            spec = _strict(document, pipeline_spec_pb2.PlatformSpec(), "no platform spec")
        except Refused:
            continue
        if kubernetes := spec.get("platforms", {}).get("kubernetes"):
            return {
                label: _strict(
                    settings,
                    kubernetes_executor_config_pb2.KubernetesExecutorConfig(),
                    "failed to unmarshal kubernetes config",
                )
                for label, settings in kubernetes["deploymentSpec"]["executors"].items()
            }
    return {}


def _strict(found: Json, message: Message, what: str) -> Json:
    try:
        json_format.ParseDict(found, message)
    except json_format.ParseError as error:
        raise Refused(f"{what}: {error}") from error
    as_json: Json = json_format.MessageToDict(message)
    return as_json
