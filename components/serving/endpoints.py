"""KServe's REST and gRPC endpoints, with versions and labels, bounded requests, plain refusals.

Refusals are Starlette's `HTTPException`, here and in the modules below; gRPC has a code for each.
"""

import asyncio
import re
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from google.protobuf.message import DecodeError
from grpc import aio
from kserve import InferRequest, InferResponse
from kserve.constants.constants import INFERENCE_CONTENT_LENGTH_HEADER, PredictorProtocol
from kserve.errors import InferenceError, InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import metrics_handler
from kserve.protocol.rest.v1_endpoints import register_v1_endpoints
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from components.inference import instances
from components.serving.repository import Versions, addressed
from components.serving.served import ServedVersion
from components.serving.settings import Serving
from components.serving.tensors import DATATYPES

_VERSIONED = re.compile("(/v[12]/models/)([^/]+)/(?:versions|labels)/([^/:]+)(.*)")
_GRPC = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class Plane(DataPlane):
    """KServe's data plane for versions that may have to be loaded first."""

    def metadata(self) -> dict[str, Any]:
        """The server's; it has no extension of the protocol."""
        return {**super().metadata(), "extensions": []}

    async def get_model(self, name: str) -> ServedVersion:
        """The version to ask, loaded."""
        versions: Versions = self.model_registry
        return await versions.find(name)

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        """A version that can be found is ready."""
        await self.get_model(model_name)
        return True

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        """V2's metadata, from the version's signature."""
        served = await self.get_model(model_name)
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
            HTTPException: 400 if it is not what the protocol says.
        """
        if protocol_version == PredictorProtocol.REST_V1.value:
            return _from_json(body), {}
        try:
            if not isinstance(body, bytes):
                return InferRequest.from_inference_request(_unicode(body), model_name), {}
            length = int(headers.get(INFERENCE_CONTENT_LENGTH_HEADER, len(body)))
            head = _from_json(body[:length])
            # Raw tensors have their data behind the JSON.
            inputs = [{"data": [], **tensor} for tensor in head["inputs"]]
            InferenceRequest.model_validate({**head, "inputs": inputs})
            return InferRequest.from_bytes(body, length, model_name), {}
        except (ValidationError, InvalidInput, HTTPException):
            raise
        except (ValueError, TypeError, KeyError, struct.error, InferenceError):
            reason = "the body is not an inference request of the V2 protocol"
            raise HTTPException(400, reason) from None

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
        raise HTTPException(400, f"the body is not JSON: {error}") from None


def _unicode(request: InferenceRequest) -> InferenceRequest:
    """Refuses half of a surrogate pair in what is not data: the answer could not repeat it."""
    texts = [request.id or "", *(tensor.name + tensor.datatype for tensor in request.inputs)]
    try:
        "".join([*texts, *(output.name for output in request.outputs or [])]).encode()
    except UnicodeEncodeError:
        reason = "a name, a datatype or the id is no Unicode text: it has half a surrogate pair"
        raise HTTPException(400, reason) from None
    return request


class ClosedRepository(ModelRepositoryExtension):
    """V2's load and unload: not for whoever can reach the server."""

    async def load(self, model_name: str) -> None:
        """Refuses."""
        raise HTTPException(501, "versions are loaded and freed as the registry's labels say")

    unload = load


def _refusal(error: Exception) -> tuple[int, str]:
    """The status and the words for an error, without the values that a caller sent."""
    if isinstance(error, HTTPException):
        status, reason = error.status_code, str(error.detail)
    elif isinstance(error, RequestValidationError | ValidationError):
        mistakes = error.errors()[:10]
        told = [f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}" for mistake in mistakes]
        status, reason = 400, "; ".join(told)
    elif isinstance(error, InvalidInput | NotImplementedError):
        status, reason = 400 if isinstance(error, InvalidInput) else 501, str(error)
    else:
        status, reason = 500, "the server failed; its log says why"
    return status, reason.encode(errors="backslashreplace").decode()


def rest(versions: Versions, settings: Serving) -> ASGIApp:
    """V1, V2, health and metrics."""
    app = FastAPI()
    plane, repository = Plane(versions), ClosedRepository(versions)
    app.add_api_route("/", plane.live)
    app.add_api_route("/metrics", metrics_handler, methods=["GET"])
    register_v1_endpoints(app, plane, repository)
    register_v2_endpoints(app, plane, repository)

    async def refuse(_: Any, error: Exception) -> JSONResponse:
        status, reason = _refusal(error)
        return JSONResponse({"error": reason}, status, getattr(error, "headers", None))

    for kind in (
        *(HTTPException, RequestValidationError, ValidationError),
        *(InvalidInput, NotImplementedError, Exception),
    ):
        app.add_exception_handler(kind, refuse)
    return Door(app, settings)


class Door:
    """Lets requests in that are bounded, and leads them to the version that their path names.

    `/v1/models/m/versions/3:predict` (TF Serving's) becomes `/v1/models/m@3:predict`: KServe
    has no routes for versions. A body that is too large, by its content-length or while it
    comes, or does not come whole in time, is refused, and the connection closed.
    """

    def __init__(self, app: ASGIApp, settings: Serving):
        """Takes what handles the request, and the bounds."""
        self._app, self._mib = app, settings.max_body_mib
        self._seconds = settings.receive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if match := _VERSIONED.fullmatch(scope["path"]):
            start, model, wanted, rest = match.groups()
            scope = {**scope, "path": f"{start}{addressed(model, wanted)}{rest}"}
        left = self._mib << 20
        announced = int(dict(scope["headers"]).get(b"content-length", 0))  # the parser checks it
        until = asyncio.get_running_loop().time() + self._seconds

        async def bounded() -> Message:
            nonlocal left
            if announced > self._mib << 20:
                raise self._too_large()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise self._too_late() from None
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            return message

        await self._app(scope, bounded, send)

    def _too_large(self) -> HTTPException:
        reason = f"the body is larger than {self._mib} MiB"
        return HTTPException(413, reason, {"connection": "close"})

    def _too_late(self) -> HTTPException:
        reason = f"the request did not come whole in {self._seconds} seconds"
        return HTTPException(408, reason, {"connection": "close"})


class Connection(HttpToolsProtocol):
    """Closes itself if no request's head comes whole in time; Uvicorn would wait for ever."""

    def connection_made(self, transport: Any) -> None:
        """Begins to watch it."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.timeout_keep_alive, self._look, None)

    def _look(self, before: Any) -> None:
        """Closes it if the last request is still the one of the look before, and is answered."""
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.close()
        else:
            self._timer = self.loop.call_later(self.timeout_keep_alive, self._look, self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the watch."""
        self._timer.cancel()
        super().connection_lost(exc)


class Servicer(InferenceServicer):
    """KServe's, which ignores the version that a request names."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Predicts."""
        if unknown := {tensor.datatype for tensor in request.inputs} - DATATYPES:
            raise HTTPException(400, f"unknown datatype '{min(unknown)[:40]}'")
        request.model_name = addressed(request.model_name, request.model_version)
        return await super().ModelInfer(request, context)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Tells whether a version is there."""
        request.name = addressed(request.name, request.version)
        return await super().ModelReady(request, context)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Tells a version's inputs and outputs."""
        name = addressed(request.name, request.version)
        return pb.ModelMetadataResponse(**await self._data_plane.model_metadata(name))


class _Refusing(aio.ServerInterceptor):
    """Parses messages itself, so that bytes that are none are refused as all else is."""

    async def intercept_service(
        self, continuation: Callable[..., Awaitable[Any]], details: Any
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None

        async def answer(message: bytes, context: Any) -> Any:
            try:
                return await handler.unary_unary(handler.request_deserializer(message), context)
            except DecodeError:
                status, reason = 400, f"these bytes are no message of {details.method}"
            except Exception as error:
                status, reason = _refusal(error)
                if status == 500 and not isinstance(error, HTTPException):
                    raise
            await context.abort(_GRPC.get(status, grpc.StatusCode.INTERNAL), reason)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )


def grpc_server(versions: Versions, settings: Serving) -> aio.Server:
    """V2 by gRPC, with bounded messages. KServe's own server class binds every interface."""
    server = aio.server(
        interceptors=(_Refusing(),),
        options=[
            ("grpc.max_receive_message_length", settings.max_body_mib << 20),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else a second server would share a taken port
            ("grpc.server_handshake_timeout_ms", settings.receive_seconds * 1000),
        ],
    )
    servicer = Servicer(Plane(versions), ClosedRepository(versions))
    stubs.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    return server
