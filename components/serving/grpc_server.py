"""KServe's gRPC server, on the host that is set, with versions and bounded messages."""

from typing import Any

from grpc import aio
from kserve.errors import InvalidInput
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer

from components.serving.plane import ClosedRepository, Plane
from components.serving.tensors import DATATYPES
from components.serving.versions import addressed


class Servicer(InferenceServicer):
    """KServe's, which ignores the version that a request names."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Predicts."""
        for tensor in request.inputs:
            if tensor.datatype not in DATATYPES:
                raise InvalidInput(
                    f"tensor '{tensor.name[:40]}': unknown datatype '{tensor.datatype[:40]}'"
                )
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


class Grpc:
    """V2 by gRPC. KServe's own server class binds every interface, whatever the host."""

    def __init__(self, plane: Plane, max_body_mib: int):
        """Takes who answers, and the largest message."""
        self._server = aio.server(
            interceptors=(ExceptionToStatusInterceptor(),),
            options=[
                ("grpc.max_receive_message_length", max_body_mib << 20),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # else a second server would share a taken port
            ],
        )
        servicer = Servicer(plane, ClosedRepository(plane.model_registry))
        stubs.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)

    def listen(self, host: str, port: int) -> int:
        """Takes a port, 0 for a free one, and returns which.

        Raises:
            OSError: If it cannot be had.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            return int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            raise OSError(str(error)) from error

    async def start(self) -> None:
        """Begins to answer."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Takes no more requests, and returns when those that came are answered."""
        await self._server.stop(grace)
