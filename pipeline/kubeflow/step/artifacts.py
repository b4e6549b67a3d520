"""Artifacts between KFP's JSON and TFX's classes."""

from collections.abc import Mapping
from typing import Any

import tfx.version

from pipeline.kubeflow import tfx_internals
from pipeline.kubeflow.step import paths

Artifacts = dict[str, list[Any]]
"""TFX artifacts by the name of the input or output."""

_OF_KFP = ("display_name", "store_session_info")
"""What KFP adds to an artifact's metadata."""


def read(given: Mapping[str, Any], types: Mapping[str, str]) -> Artifacts:
    """TFX artifacts with local paths, of the types that the compiler recorded.

    KFP hands inputs over without a type, and adds an output `executor-logs`, which no executor
    knows.

    Args:
      given: `artifacts` of KFP's executor input, by name.
      types: the class of each.
    """
    found: Artifacts = {}
    for name, kind in types.items():
        if name in given:
            found[name] = [_read(each, kind) for each in given[name]["artifacts"]]
    return found


def _read(given: Mapping[str, Any], kind: str) -> Any:
    metadata = {k: v for k, v in given.get("metadata", {}).items() if k not in _OF_KFP}
    artifact = tfx_internals.artifact({**given, "metadata": metadata}, kind)
    artifact.uri = paths.local(given["uri"])
    return artifact


def described(outputs: Artifacts) -> dict[str, Any]:
    """KFP's ExecutorOutput as JSON: the artifacts with URIs again, and without nulls."""
    return {
        "artifacts": {
            name: {"artifacts": [_describe(name, artifact) for artifact in made]}
            for name, made in outputs.items()
        }
    }


def _describe(name: str, artifact: Any) -> dict[str, Any]:
    artifact.set_string_custom_property("tfx_version", tfx.version.__version__)
    metadata = {
        key: paths.remote(value) if isinstance(value, str) else value
        for key, value in tfx_internals.metadata(artifact).items()
    }
    return {"name": name, "uri": paths.remote(artifact.uri), "metadata": metadata}
