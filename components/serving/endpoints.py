"""KServe's protocols by REST (V1, V2) and gRPC (V2): bounded requests, plain refusals.

The messages are KServe's own; its server has no routes for versions, no bounds, and listens on
every interface. Refusals are Starlette's `HTTPException`, here and in the modules below; gRPC has a
code for each.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError
from grpc import aio
from kserve import InferRequest
from kserve.constants.constants import INFERENCE_CONTENT_LENGTH_HEADER
from kserve.errors import InvalidInput
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from components.inference import instances
from components.serving import tensors
from components.serving.repository import Versions
from components.serving.served import ServedVersion
from components.serving.settings import Serving

_LOG = logging.getLogger(__name__)
VERSION_HEADER = "x-model-version"
_SERVER = {"name": "kserve", "version": "2", "extensions": list[str]()}
_GRPC = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}


class Rest:
    """The endpoints of REST, health and metrics among them."""

    def __init__(self, versions: Versions, settings: Serving):
        """Takes what is served, and the bounds."""
        self._versions, self._settings = versions, settings

    def app(self) -> Starlette:
        """The routes: TF Serving's for versions and labels in V1, the protocol's in V2."""
        routes = [
            Route("/", _always(JSONResponse({"status": "alive"}))),
            Route("/metrics", _metrics),
            Route("/v1/models", self.models),
            Route("/v2", _always(JSONResponse(_SERVER))),
            Route("/v2/models", self.models),
            Route("/v2/health/live", _always(JSONResponse({"live": True}))),
            Route("/v2/health/ready", _always(JSONResponse({"ready": True}))),
        ]
        for place in ("", "/versions/{wanted}", "/labels/{wanted}"):
            model = f"/models/{{model}}{place}"
            routes += [
                Route(f"/v1{model}:predict", self.predict, methods=["POST"]),
                Route(f"/v1{model}:explain", self.explain, methods=["POST"]),
                Route(f"/v1{model}", self.ready),
                Route(f"/v2{model}", self.metadata),
                Route(f"/v2{model}/ready", self.ready),
                Route(f"/v2{model}/infer", self.infer, methods=["POST"]),
            ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _refuse})

    async def models(self, _: Request) -> Response:
        """What is in memory, by KServe's names."""
        return JSONResponse({"models": self._versions.names()})

    async def ready(self, request: Request) -> Response:
        """A version that can be found is ready."""
        served = await self._served(request)
        return JSONResponse({"name": served.name, "ready": True})

    async def metadata(self, request: Request) -> Response:
        """V2's metadata, from the version's signature."""
        return JSONResponse((await self._served(request)).metadata())

    async def predict(self, request: Request) -> Response:
        """V1; the body is JSON whatever its content type is called."""
        return await self._predict(request, "")

    async def explain(self, request: Request) -> Response:
        """KServe's V1 explanations: predictions with what each column adds to them."""
        return await self._predict(request, "explain")

    async def _predict(self, request: Request, detail: str) -> Response:
        served, body = await self._served(request), await self._body(request)
        try:
            rows = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from None
        return _answer(served, instances.as_json(await served.predict(rows, detail)))

    async def infer(self, request: Request) -> Response:
        """V2."""
        served, body = await self._served(request), await self._body(request)
        announced = request.headers.get(INFERENCE_CONTENT_LENGTH_HEADER, "")
        json_bytes = int(announced) if announced.isdecimal() else len(body)
        inference = tensors.from_body(body, json_bytes, served.name)
        answer, length = (await served.infer(inference)).to_rest()
        if length is None:
            return _answer(served, instances.as_json(answer))
        more = {INFERENCE_CONTENT_LENGTH_HEADER: str(length)}
        return _answer(served, answer, "application/octet-stream", more)

    async def _served(self, request: Request) -> ServedVersion:
        place = request.path_params
        return await self._versions.find(place["model"], place.get("wanted", ""))

    async def _body(self, request: Request) -> bytes:
        """The body; if it is too large or too slow, it is refused, and the connection closed."""
        mib, seconds = self._settings.max_body_mib, self._settings.receive_seconds
        close, body = {"connection": "close"}, bytearray()
        too_large = HTTPException(413, f"the body is larger than {mib} MiB", close)
        if int(request.headers.get("content-length", 0)) > mib << 20:
            raise too_large
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > mib << 20:
                        raise too_large
        except (TimeoutError, ClientDisconnect):
            reason = f"the request did not come whole in {seconds} seconds"
            raise HTTPException(408, reason, close) from None
        return bytes(body)


def _always(answer: Any) -> Callable[[Any], Awaitable[Any]]:
    async def endpoint(_: Any) -> Any:
        return answer

    return endpoint


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _answer(
    served: ServedVersion,
    body: bytes,
    kind: str = "application/json",
    more: dict[str, str] | None = None,
) -> Response:
    headers = {VERSION_HEADER: str(served.version), **(more or {})}
    return Response(body, media_type=kind, headers=headers)


async def _refuse(_: Request, error: Any) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


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


def grpc_server(versions: Versions, settings: Serving) -> aio.Server:
    """V2 by gRPC, with bounded messages. What is no method here, loading a model, is refused."""

    async def model_ready(message: Any) -> Any:
        await versions.find(message.name, message.version)
        return pb.ModelReadyResponse(ready=True)

    async def model_metadata(message: Any) -> Any:
        served = await versions.find(message.name, message.version)
        return pb.ModelMetadataResponse(**served.metadata())

    async def infer(message: Any) -> Any:
        served = await versions.find(message.model_name, message.model_version)
        try:
            request = InferRequest.from_grpc(message)
        except (InvalidInput, IndexError) as error:
            raise HTTPException(400, str(error)) from None
        return (await served.infer(request)).to_grpc()

    methods = {
        "ServerLive": _method(pb.ServerLiveRequest, _always(pb.ServerLiveResponse(live=True))),
        "ServerReady": _method(pb.ServerReadyRequest, _always(pb.ServerReadyResponse(ready=True))),
        "ServerMetadata": _method(
            pb.ServerMetadataRequest, _always(pb.ServerMetadataResponse(**_SERVER))
        ),
        "ModelReady": _method(pb.ModelReadyRequest, model_ready),
        "ModelMetadata": _method(pb.ModelMetadataRequest, model_metadata),
        "ModelInfer": _method(pb.ModelInferRequest, infer),
    }
    options = [
        ("grpc.max_receive_message_length", settings.max_body_mib << 20),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # else a second server would share a taken port
        ("grpc.server_handshake_timeout_ms", settings.receive_seconds * 1000),
    ]
    made = aio.server(options=options)
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)
    made.add_generic_rpc_handlers((service,))
    return made


def _method(kind: Any, answer: Callable[[Any], Awaitable[Any]]) -> grpc.RpcMethodHandler:
    """A method; it parses messages itself, so that bytes that are none are refused as all else."""

    async def call(message: bytes, context: Any) -> Any:
        code, reason = grpc.StatusCode.INTERNAL, "the server failed; its log says why"
        try:
            return await answer(kind.FromString(message))
        except DecodeError:
            code, reason = _GRPC[400], f"these bytes are no {kind.__name__}"
        except HTTPException as error:
            code, reason = _GRPC.get(error.status_code, code), str(error.detail)
        except Exception:
            _LOG.exception("A gRPC call failed")
        await context.abort(code, reason)

    return grpc.unary_unary_rpc_method_handler(
        call, response_serializer=lambda message: message.SerializeToString()
    )
