"""KServe's REST server, on a socket that is ours, with bounded bodies and versions by path."""

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.serving.errors import ModelFailed
from components.serving.plane import ClosedRepository, Plane, explain
from components.serving.versions import addressed

_APP = "kserve.model_server:app"
_VERSIONED = re.compile("(/v[12]/models/)([^/]+)/(?:versions|labels)/([^/:]+)(.*)")


class Rest(RESTServer):
    """V1, V2, health and metrics."""

    def __init__(self, plane: Plane, listener: socket.socket, max_body_mib: int, grace: int):
        """Takes who answers, where to listen, the largest body, and seconds to finish in."""
        port = listener.getsockname()[1]
        super().__init__(
            _APP, plane, ClosedRepository(plane.model_registry), port, grace_period=grace
        )
        self._server = _Server(self.config)
        self._listener = listener
        self._max_body_mib = max_body_mib

    async def start(self) -> None:
        """Serves until `stop`."""
        self.create_application()
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Takes no more requests; `start` returns when those that came are answered."""
        self._server.should_exit = True

    def _add_middlewares(self, app: FastAPI) -> None:
        # Without KServe's, which times every request for a log that nobody reads.
        app.add_middleware(BoundedBodies, mib=self._max_body_mib)
        app.add_middleware(VersionsByPath)

    def _add_exception_handlers(self, app: FastAPI) -> None:
        super()._add_exception_handlers(app)
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(StarletteHTTPException, _refused)
        app.add_exception_handler(ModelFailed, _failed)


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: REST and gRPC end together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class VersionsByPath:
    """Makes `/v1/models/m/versions/3:predict` (TF Serving's) `/v1/models/m@3:predict`.

    So KServe's own routes serve versions and labels, for which they have no place yet.
    """

    def __init__(self, app: ASGIApp):
        """Takes what handles the request."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] == "http" and (found := _VERSIONED.fullmatch(scope["path"])):
            start, model, wanted, rest = found.groups()
            scope = {**scope, "path": f"{start}{addressed(model, wanted)}{rest}"}
        await self._app(scope, receive, send)


class BoundedBodies:
    """Refuses bodies that are too large, with or without a content-length, and hangs up.

    Starlette's own limit does not say what is allowed, and goes on receiving.
    """

    def __init__(self, app: ASGIApp, mib: int):
        """Takes what handles the request, and the bound in MiB."""
        self._app = app
        self._mib = mib

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        left = self._mib << 20

        async def bounded() -> Message:
            nonlocal left
            if announced > self._mib << 20:
                raise self._too_large()
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            return message

        headers = dict(scope.get("headers", []))
        announced = int(headers.get(b"content-length", 0))  # digits: the HTTP parser checks
        await self._app(scope, bounded, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"the body is larger than {self._mib} MiB", {"connection": "close"}
        )


async def _invalid(_: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": explain(error.errors())}, 400)


async def _failed(_: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": error.details}, 500)


async def _refused(_: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
