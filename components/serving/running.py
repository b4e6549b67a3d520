"""Puts the server together, runs it, and ends it in order."""

import asyncio
import errno
import gc
import json
import logging
import shlex
import signal
import socket
import warnings

from fastapi.exceptions import FastAPIDeprecationWarning

from components.errors import PipelineStop
from components.inference.model import Chosen, LoadedVersion, choose
from components.inference.prediction_log import PredictionLog
from components.registry import store
from components.registry.signature import Signature
from components.serving import errors, metrics
from components.serving.following import Follower
from components.serving.grpc_server import Grpc
from components.serving.plane import Plane
from components.serving.rest import Rest
from components.serving.served import ServedVersion
from components.serving.settings import GRACE_SECONDS, Serving
from components.serving.versions import Versions

_EXAMPLE = {"FLOAT": 1.5, "INT": 1, "BYTES": "text"}


def run(folder: str, wanted: str | None, settings: Serving, log: PredictionLog | None) -> int:
    """Serves until SIGTERM or SIGINT; see `components.serving.server.main`."""
    chosen = choose(folder, wanted or store.CHAMPION)
    _set_up_logging()
    if log is not None:
        metrics.show_log(log)

    def load(number: int) -> ServedVersion:
        loaded = LoadedVersion(Chosen(folder, number))
        return ServedVersion(chosen.name, loaded, settings, log)

    _calm_collector()
    first = load(chosen.version)
    with listen(settings.host, settings.http_port) as listener:
        versions = Versions(folder, wanted or store.CHAMPION, first, load)
        asyncio.run(_serve(versions, listener, settings))
    return 0


async def _serve(versions: Versions, listener: socket.socket, settings: Serving) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    plane = Plane(versions)
    rest = Rest(plane, listener, settings.max_body_mib, GRACE_SECONDS)
    grpc = Grpc(plane, settings.max_body_mib)
    try:
        grpc_port = grpc.listen(settings.host, settings.grpc_port)
    except OSError as error:
        raise _cannot_listen("grpc_port", settings.host, settings.grpc_port, error) from error
    await grpc.start()
    following = asyncio.create_task(Follower(versions).follow(settings.follow_seconds))
    serving = asyncio.create_task(rest.start())
    _tell(versions, settings.host, listener.getsockname()[1], grpc_port)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, serving}, return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    rest.stop()
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


def _cannot_listen(setting: str, host: str, port: int, error: OSError) -> PipelineStop:
    why = "it is taken" if error.errno == errno.EADDRINUSE else str(error)
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


def _set_up_logging() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("components.serving").setLevel(logging.INFO)
    kserve = logging.getLogger("kserve")
    kserve.setLevel(logging.WARNING)  # it tells every gRPC call
    kserve.addFilter(errors.keep_from_log)
    logging.getLogger("uvicorn.access").propagate = False
    warnings.filterwarnings("ignore", category=FastAPIDeprecationWarning)  # KServe's, a request


def _tell(versions: Versions, host: str, http_port: int, grpc_port: int) -> None:
    """Prints where it listens, and a request that can be typed."""
    default = versions.get_models()[versions.name]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    reached = f"[{reached}]" if ":" in reached else reached
    body = json.dumps({"instances": [_example(default.signature)]})
    print(
        f"{versions.name}, version {default.version}, is served\n"
        f"  REST  http://{reached}:{http_port}  (V1, V2, /metrics)\n"
        f"  gRPC  {reached}:{grpc_port}  (V2)\n"
        "Try it:\n"
        f"  curl http://{reached}:{http_port}/v1/models/{versions.name}:predict "
        f"-d {shlex.quote(body)}",
        flush=True,
    )


def _example(signature: Signature) -> dict[str, object]:
    return {name: _EXAMPLE[column["type"]] for name, column in signature["inputs"].items()}
