"""A Docker engine's API on loopback; each of its containers is a process of this machine.

The endpoints are those that the package `docker` calls for kfp.local, as
https://docs.docker.com/reference/api/engine/version/v1.47/ describes them. A container sees the
mounted folders at their places, in a mount namespace of its own.
"""

import json
import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from tests.kubeflow.imitation.container import Image, Pod, end

Json = dict[str, Any]


@dataclass
class Container:
    """One container.

    Attributes:
        id: Its name.
        request: What it was created with.
        pod: Its volumes.
        process: Once it has been started.
    """

    id: str
    request: Json
    pod: Pod
    process: Any = None

    @property
    def log(self) -> Path:
        return self.pod.folder / "log"

    @property
    def description(self) -> Json:
        code = self.process.poll() if self.process else None
        status = "created" if not self.process else "running" if code is None else "exited"
        return {
            "Id": self.id,
            "Name": f"/{self.id}",
            "State": {"Status": status, "ExitCode": code or 0},
            "Config": {**self.request, "Tty": False},
            "HostConfig": self.request["HostConfig"],
        }

    @property
    def component(self) -> str:
        """The component, if this is a step."""
        command = self.request["Cmd"]
        name: str = json.loads(command[command.index("--step") + 1])["component"]
        return name

    def frames(self) -> Iterator[bytes]:
        """The log while it is written, line by line, each with the header of its stream."""
        with self.log.open("rb") as log:
            is_over = False
            while True:
                line = log.readline()
                if line:
                    yield struct.pack(">BxxxL", 1, len(line)) + line
                elif is_over:
                    return
                else:
                    is_over = self._wait(0.05)

    def _wait(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except Exception:  # still running
            return False
        return True


@dataclass
class Engine:
    """The engine.

    Attributes:
        folder: For what its containers leave.
        image: What stands for every image.
        names: The images that it has, each with its tags.
        options: `SecurityOptions` of its description.
        removes_at_once: Whether a container that is to be removed is gone before its log's end is
            sent, so that nobody can ask for its exit code; else it stays until that was asked for.
        on_start: Called with a container when its process has started.
        created: The requests of all containers, in order.
        pulled: The names of images that were asked for in vain.
    """

    folder: Path
    image: Image
    names: dict[str, list[str]]
    options: list[str] = field(default_factory=list)
    removes_at_once: bool = True
    on_start: Callable[[Container], None] = lambda container: None
    created: list[Json] = field(default_factory=list)
    pulled: list[str] = field(default_factory=list)
    containers: dict[str, Container] = field(default_factory=dict)

    def create(self, request: Json) -> str:
        name = f"container{len(self.created)}"
        self.created.append(request)
        binds = [each.split(":") for each in request["HostConfig"]["Binds"]]
        for source, _, _ in binds:
            assert Path(source).is_dir(), f"An engine would make {source}, as root."
        volumes = {target: Path(source) for source, target, _ in binds}
        folder = self.folder / name
        folder.mkdir(parents=True)
        self.containers[name] = Container(name, request, Pod(folder, volumes))
        return name

    def start(self, container: Container) -> None:
        given = dict(each.split("=", 1) for each in container.request.get("Env") or ())
        command = container.request["Cmd"]
        environment = self.image.full_environment() | given
        container.process = container.pod.start(command, environment, self.image, container.log)
        self.on_start(container)

    def remove(self, container: Container) -> None:
        if container.request["HostConfig"].get("AutoRemove"):
            self.containers.pop(container.id, None)

    def running(self) -> list[Container]:
        return [one for one in self.containers.values() if one.process.poll() is None]

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Yields its address, as DOCKER_HOST has it."""
        handler = type("Handler", (_Handler,), {"engine": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"tcp://127.0.0.1:{server.server_port}"
            finally:
                for container in self.running():
                    end(container.process)
                server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    engine: ClassVar[Engine]

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at `created`."""

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = re.sub(r"^/v1\.\d+", "", unquote(url.path))
        for pattern, answer in _ENDPOINTS.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                try:
                    answer(self, *found.groups(), **self._arguments(url.query, body))
                except KeyError as error:
                    self._send(404, {"message": f"No such thing: {error}"})
                return
        self._send(501, {"message": f"The imitation has no {method} {path}"})

    def _arguments(self, query: str, body: bytes) -> Json:
        return {"query": parse_qs(query), "body": json.loads(body) if body else {}}

    def _send(self, code: int, answer: Any = None) -> None:
        text = json.dumps(answer).encode() if answer is not None else b""
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def version(self, **_: Any) -> None:
        self._send(200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24", "Version": "27.0"})

    def info(self, **_: Any) -> None:
        self._send(200, {"SecurityOptions": self.engine.options})

    def list_images(self, **_: Any) -> None:
        self._send(200, [self._image(name) for name in self.engine.names])

    def inspect_image(self, name: str, **_: Any) -> None:
        self._send(200, self._image(name))

    def _image(self, name: str) -> Json:
        known = {alias: key for key, tags in self.engine.names.items() for alias in (key, *tags)}
        tags = self.engine.names[known[name]]
        return {"Id": tags[0], "RepoTags": tags, "RepoDigests": []}

    def pull(self, query: Json, **_: Any) -> None:
        self.engine.pulled.append(query["fromImage"][0])
        self._send(404, {"message": "pull access denied"})

    def create(self, body: Json, **_: Any) -> None:
        self._send(201, {"Id": self.engine.create(body), "Warnings": []})

    def list_containers(self, query: Json, **_: Any) -> None:
        [label] = json.loads(query["filters"][0])["label"]
        name, value = label.split("=")
        found = [
            one.description
            for one in self.engine.running()
            if one.request["Labels"].get(name) == value
        ]
        self._send(200, found)

    def inspect(self, name: str, **_: Any) -> None:
        self._send(200, self.engine.containers[name].description)

    def start(self, name: str, **_: Any) -> None:
        self.engine.start(self.engine.containers[name])
        self._send(204)

    def kill(self, name: str, **_: Any) -> None:
        end(self.engine.containers[name].process)
        self._send(204)

    def logs(self, name: str, **_: Any) -> None:
        container = self.engine.containers[name]
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.multiplexed-stream")
        self.end_headers()
        try:
            for frame in container.frames():
                self.wfile.write(frame)
        except (BrokenPipeError, ConnectionResetError):
            return
        if self.engine.removes_at_once:
            self.engine.remove(container)

    def wait(self, name: str, **_: Any) -> None:
        container = self.engine.containers[name]
        code = container.process.wait()
        self.engine.remove(container)
        self._send(200, {"StatusCode": code if code >= 0 else 128 - code})


_ENDPOINTS: dict[str, Callable[..., None]] = {
    r"GET /version": _Handler.version,
    r"GET /info": _Handler.info,
    r"GET /images/json": _Handler.list_images,
    r"GET /images/(.+)/json": _Handler.inspect_image,
    r"POST /images/create": _Handler.pull,
    r"POST /containers/create": _Handler.create,
    r"GET /containers/json": _Handler.list_containers,
    r"GET /containers/(\w+)/json": _Handler.inspect,
    r"POST /containers/(\w+)/start": _Handler.start,
    r"POST /containers/(\w+)/kill": _Handler.kill,
    r"GET /containers/(\w+)/logs": _Handler.logs,
    r"POST /containers/(\w+)/wait": _Handler.wait,
}
