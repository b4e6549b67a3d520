"""All that this part takes from TFX's inside.

`tests/pipeline/kubeflow/test_tfx_internals.py` fails when TFX changes it.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping
from typing import Any

import yaml

_WAITING = ("tfx.components", "kfp", "tensorflow_model_analysis")


def import_no_more_than_needed() -> None:
    """Lets modules of three packages be imported without all the others there.

    Their `__init__` imports every component of TFX, KFP's client, and all of TFMA's metrics; here
    it waits for the first name that someone asks it for.
    """
    for name in _WAITING:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            package = importlib.util.module_from_spec(spec)
            package.__class__ = _Waiting
            sys.modules[name] = package
    # What TFX's component specs take from TFMA, and what `tfx.components` adds to it.
    importlib.import_module("google.protobuf.wrappers_pb2")
    importlib.import_module("tensorflow_model_analysis.sdk")
    settings = importlib.import_module("tensorflow_model_analysis.proto.config_pb2")
    sys.modules["tensorflow_model_analysis"].EvalConfig = settings.EvalConfig  # type: ignore[attr-defined]


class _Waiting(types.ModuleType):
    """A package whose `__init__` has yet to run."""

    def __getattr__(self, name: str) -> Any:
        if (
            (name.startswith("__") and name != "__version__")
            or self.__spec__ is None
            or self.__spec__.loader is None
        ):
            raise AttributeError(name)
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def instance_schema(artifact_type: Any) -> str:
    """The schema of an artifact type in a package: TFX's own, or a title for a type of ours."""
    from tfx.orchestration.kubeflow.v2 import compiler_utils

    if artifact_type.__module__.startswith("tfx."):
        schema = compiler_utils.get_artifact_schema(artifact_type)
        return schema.decode() if isinstance(schema, bytes) else schema
    return yaml.safe_dump({"title": f"tfx.{artifact_type.TYPE_NAME}", "type": "object"})


def artifact(given: Mapping[str, Any], kind: str) -> Any:
    """A TFX artifact from KFP's RuntimeArtifact as JSON.

    Args:
      given: `uri`, `metadata` and `name`; its type is not looked at.
      kind: the class of the artifact.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2 as messages
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as utils

    typed = {**given, "type": {"schemaTitle": kind}}
    message = json_format.ParseDict(typed, messages.RuntimeArtifact(), ignore_unknown_fields=True)
    read = utils.parse_raw_artifact_dict({"": messages.ArtifactList(artifacts=[message])})
    found = read[""][0]
    if given.get("name", "").isdigit():  # the metadata store's id, which TFX would hash
        found.id = int(given["name"])
    _unpack(found.mlmd_artifact.custom_properties)
    return found


def _unpack(properties: Any) -> None:
    """Custom properties as a component set them; TFX leaves each wrapped in a struct."""
    from tfx.types import artifact as artifacts

    for value in properties.values():
        plain = artifacts._decode_struct_value(value.struct_value)
        if isinstance(plain, str):
            value.string_value = plain
        elif isinstance(plain, float) and plain.is_integer():
            value.int_value = int(plain)
        elif isinstance(plain, float):
            value.double_value = plain


def metadata(described: Any) -> dict[str, Any]:
    """The properties of a TFX artifact as KFP's metadata; those without a value are left out."""
    from google.protobuf import json_format
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as utils

    message = utils.to_runtime_artifact(described, {described.id: described.name})
    found = json_format.MessageToDict(message.metadata)
    return {name: value for name, value in found.items() if value is not None}
