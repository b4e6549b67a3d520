"""The online server, by KServe's protocols (book pattern 16, Stateless Serving Function).

It serves one model of the registry by REST (V1, V2) and gRPC (V2): the champion, any version and
any label. It follows the labels, and ends on SIGTERM or SIGINT, when what came is answered.
"""

import asyncio
import contextlib
import errno
import gc
import json
import logging
import shlex
import signal
import socket
from typing import Any

import uvicorn

from components.errors import PipelineStop
from components.inference import instances
from components.inference.model import Chosen, LoadedVersion, choose
from components.inference.prediction_log import PredictionLog
from components.serving import endpoints, served
from components.serving.repository import Versions
from components.serving.served import ServedVersion
from components.serving.settings import GRACE_SECONDS, Serving

_EXAMPLE = {"FLOAT": 1.5, "INT": 1, "BYTES": "text"}


def run(
    folder: str, wanted: str, settings: Serving, log: PredictionLog | None, reader: Any = instances
) -> int:
    """Serves until it is told to end; 0 comes back.

    Args:
        folder: `registry/<model>`.
        wanted: The version or label for callers that name none.
        settings: Where to listen, and the bounds.
        log: Where predictions are logged.
        reader: Of V1's rows; see `pipeline.parts.row_reader`.

    Raises:
        PipelineStop: If there is no such version, it cannot be loaded, or a port is taken.
    """
    chosen = choose(folder, wanted)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("components.serving").setLevel(logging.INFO)
    if log is not None:
        served.show_log(log)

    def load(number: int) -> ServedVersion:
        loaded = LoadedVersion(Chosen(folder, number))
        return ServedVersion(chosen.name, loaded, settings, log, reader)

    _calm_collector()
    versions, first = Versions(folder, wanted, load), load(chosen.version)
    versions.begin(first)
    with listen(settings.host, settings.http_port) as listener:
        asyncio.run(_serve(versions, first, listener, settings))
    return 0


async def _serve(
    versions: Versions, first: ServedVersion, listener: socket.socket, settings: Serving
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    rest = uvicorn.Server(
        uvicorn.Config(
            endpoints.Rest(versions, settings).app(),
            http=endpoints.Connection,
            log_config=None,
            access_log=False,
            timeout_keep_alive=settings.receive_seconds,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    # It ends with gRPC, and not by itself.
    rest.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    grpc = endpoints.grpc_server(versions, settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        grpc_port = grpc.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise _cannot_listen("grpc_port", settings.host, settings.grpc_port, error) from error
    await grpc.start()
    following = asyncio.create_task(versions.follow(settings.follow_seconds))
    serving = asyncio.create_task(rest.serve(sockets=[listener]))
    _tell(versions, first, settings.host, listener.getsockname()[1], grpc_port)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, serving}, return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    rest.should_exit = True
    await asyncio.gather(serving, grpc.stop(GRACE_SECONDS))


def listen(host: str, port: int) -> socket.socket:
    """A socket for REST.

    Raises:
        PipelineStop: If the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise _cannot_listen("http_port", host, port, error) from error
    # Connections inherit it. Else an answer's body waits 40 ms for the client's word on its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _cannot_listen(setting: str, host: str, port: int, error: Exception) -> PipelineStop:
    why = "it is taken" if getattr(error, "errno", None) == errno.EADDRINUSE else str(error)
    return PipelineStop(
        f"Cannot listen on port {port} of {host}: {why}. Stop what listens there, or choose "
        f"another with `--set serving.{setting}=...`."
    )


def _calm_collector() -> None:
    """Keeps Python's garbage collector from stopping everything for 0.1 s, every second.

    What is imported, half a million objects, is never looked through again, and the rest when
    50,000 objects are new, not 700: what a request makes goes with the request.
    """
    import tensorflow  # noqa: F401 (before, so that it counts as imported)

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def _tell(versions: Versions, first: ServedVersion, host: str, http_port: int, grpc: int) -> None:
    """Prints where it listens, and a request that can be typed."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
        host, f"[{host}]" if ":" in host else host
    )
    row = {name: _EXAMPLE[column["type"]] for name, column in first.signature["inputs"].items()}
    print(
        f"{versions.name}, version {first.version}, is served\n"
        f"  REST  http://{reached}:{http_port}  (V1, V2, /metrics)\n"
        f"  gRPC  {reached}:{grpc}  (V2)\n"
        "Try it:\n"
        f"  curl http://{reached}:{http_port}/v1/models/{versions.name}:predict "
        f"-d {shlex.quote(json.dumps({'instances': [row]}))}",
        flush=True,
    )
