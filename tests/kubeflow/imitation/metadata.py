"""ML Metadata, as far as it shows: artifacts with increasing ids, and what they are known by."""

import itertools
from dataclasses import dataclass
from typing import Any

import yaml

from tests.kubeflow.imitation.package import Json

MINIO_SESSION = (
    '{"Provider":"minio","Params":{"accessKeyKey":"accesskey","disableSSL":"true",'
    '"endpoint":"seaweedfs.kubeflow:9000","fromEnv":"false","maxRetries":"5","region":"minio",'
    '"secretKeyKey":"secretkey","secretName":"mlpipeline-minio-artifact"}}'
)
"""`store_session_info` of what the launcher stores under a minio root, as recorded."""


class MetadataError(Exception):
    """ML Metadata's client can't store this."""


@dataclass(frozen=True)
class Artifact:
    """A stored artifact.

    Attributes:
        id: Counts up over all runs.
        type: The title of its schema, such as `tfx.Model`.
        uri: Where it lies; whatever the step said.
        metadata: Values as the next step reads them.
        pipeline: Whose run made it.
    """

    id: int
    type: str
    uri: str
    metadata: dict[str, Any]
    pipeline: str

    def as_input(self) -> Json:
        """What a consuming step is handed: its type is lost on the way."""
        return {
            "name": str(self.id),
            "uri": self.uri,
            "type": {"instanceSchema": ""},
            "metadata": self.metadata,
        }


class MetadataStore:
    """All artifacts of all runs.

    Attributes:
        artifacts: By id.
    """

    def __init__(self) -> None:
        self.artifacts: dict[int, Artifact] = {}
        self._ids = itertools.count(1)

    def record(self, type_schema: Json, uri: str, metadata: Json, pipeline: str) -> Artifact:
        """Stores an artifact under the next id.

        Raises:
            MetadataError: For a null among the metadata, or a type without a title.
        """
        stored = {key: _stored(value) for key, value in metadata.items()}
        artifact = Artifact(next(self._ids), _title(type_schema), uri, stored, pipeline)
        self.artifacts[artifact.id] = artifact
        return artifact

    def find(self, type_schema: Json, uri: str, metadata: Json, pipeline: str) -> Artifact | None:
        """The first artifact of the pipeline with this type and URI and at least this metadata."""
        wanted = {key: _stored(value) for key, value in metadata.items()}
        for found in self.artifacts.values():
            same = (found.type, found.uri, found.pipeline) == (_title(type_schema), uri, pipeline)
            if same and wanted.items() <= found.metadata.items():
                return found
        return None


def plain(value: Any) -> Any:
    """A JSON value as protobuf prints it: every number is a double, and 6.0 is printed as 6."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def _stored(value: Any) -> Any:
    """A metadata value after its way through ML Metadata, which has no lists and no nulls."""
    if value is None:
        raise MetadataError(
            "failed to convert RuntimeArtifact to MLMD artifact: unknown/unsupported value type "
            "*structpb.Value_NullValue"
        )
    if isinstance(value, list | dict):
        return {"list" if isinstance(value, list) else "struct": plain(value)}
    return int(value) if isinstance(value, bool) else plain(value)


def _title(type_schema: Json) -> str:
    if "schemaTitle" in type_schema:
        return str(type_schema["schemaTitle"])
    schema = yaml.safe_load(type_schema.get("instanceSchema", "")) or {}
    if not schema.get("title"):
        raise MetadataError("No title specified")
    return str(schema["title"])
