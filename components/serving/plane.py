"""What KServe's REST and gRPC endpoints ask: models by name, and bodies to and from Python."""

import struct
from typing import Any

import orjson
from kserve import InferRequest, InferResponse
from kserve.constants.constants import INFERENCE_CONTENT_LENGTH_HEADER, PredictorProtocol
from kserve.errors import InferenceError, InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from pydantic import ValidationError

from components.serving import instances
from components.serving.errors import NotOffered
from components.serving.served import ServedVersion
from components.serving.versions import Versions


class Plane(DataPlane):
    """KServe's data plane for versions that may have to be loaded first."""

    def __init__(self, versions: Versions):
        """Takes the versions."""
        super().__init__(versions)
        self._versions = versions

    def metadata(self) -> dict[str, Any]:
        """The server's; it has no extension of the protocol."""
        return {**super().metadata(), "extensions": []}

    async def get_model(self, name: str) -> ServedVersion:
        """The version to ask, loaded."""
        return await self._versions.find(name)

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        """A version that can be found is ready."""
        await self._versions.find(model_name)
        return True

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        """V2's metadata, from the version's signature."""
        served = await self._versions.find(model_name)
        return {
            "name": served.name,
            "versions": [str(served.version)],
            "platform": "tensorflow_savedmodel",
            "inputs": served.get_input_types(),
            "outputs": served.get_output_types(),
        }

    def decode(
        self,
        body: Any,
        headers: dict[str, str],
        protocol_version: str = PredictorProtocol.REST_V1.value,
        model_name: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Reads a body: V1's is JSON whatever its content type is called.

        Raises:
            InvalidInput: If it is not what the protocol says.
        """
        if protocol_version == PredictorProtocol.REST_V1.value:
            return _from_json(body), {}
        try:
            if isinstance(body, bytes):
                length = int(headers.get(INFERENCE_CONTENT_LENGTH_HEADER, len(body)))
                _check_head(_from_json(body[:length]))
                return InferRequest.from_bytes(body, length, model_name), {}
            return InferRequest.from_inference_request(body, model_name), {}
        except (ValueError, TypeError, KeyError, struct.error, InferenceError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput("the body is not an inference request of the V2 protocol") from None

    def encode(
        self, model_name: str, response: Any, headers: dict[str, str], req_attributes: Any
    ) -> tuple[Any, dict[str, str]]:
        """Writes an answer."""
        if isinstance(response, InferResponse):
            return super().encode(model_name, response, None, {})
        return instances.as_json(response), {"content-type": "application/json"}


def _from_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from None


def _check_head(head: Any) -> None:
    """Checks the JSON before raw tensors, whose data is not in the JSON."""
    try:
        inputs = [{"data": [], **tensor} for tensor in head["inputs"]]
        InferenceRequest.model_validate({**head, "inputs": inputs})
    except ValidationError as error:
        raise InvalidInput(explain(error.errors())) from None


def explain(mistakes: Any) -> str:
    """Pydantic's mistakes as a sentence, without the values."""
    return "; ".join(f"{'.'.join(map(str, m['loc']))}: {m['msg']}" for m in mistakes[:10])


class ClosedRepository(ModelRepositoryExtension):
    """V2's load and unload: not for whoever can reach the server."""

    async def load(self, model_name: str) -> None:
        """Refuses."""
        raise NotOffered("versions are loaded as the registry's labels say, or when asked for")

    async def unload(self, model_name: str) -> None:
        """Refuses."""
        raise NotOffered("versions are unloaded when no label points to them")
