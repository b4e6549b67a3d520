"""A Kubeflow Pipelines API server on the loopback interface, as far as submitting needs one.

It is as strict as the real one (2.17, `backend/src/apiserver`), in the same words; it keeps what
it was asked, and fails when it is told to.
"""

import email
import json
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import yaml

_API = "/apis/v2beta1"
_FILTERS = {
    "pipelines": {"name", "display_name"},
    "versions": {"name", "display_name"},
    "experiments": {"name", "display_name"},
    "runs": {"name", "display_name"},
    "recurringruns": {"name", "display_name"},
}
_KINDS: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
_RUN_FIELDS = {
    "display_name",
    "description",
    "experiment_id",
    "pipeline_version_reference",
    "runtime_config",
    "service_account",
}
_RECURRING_FIELDS = _RUN_FIELDS | {"mode", "trigger", "max_concurrency", "no_catchup"}


class Refusal(Exception):
    """An error of the server's: HTTP status, gRPC code and words."""

    def __init__(self, status: int, code: int, words: str):
        super().__init__(words)
        self.status, self.code, self.words = status, code, words


class Asked(NamedTuple):
    """A request that came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Fault(NamedTuple):
    """What is answered in place of the answer; no status: the connection is closed."""

    status: int | None
    body: str = ""
    kind: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()


HANGS = Fault(0)
"""No answer until the server ends."""
UNHEARD, CUT = Fault(0), Fault(None)
"""It does what it is asked; then there is no answer until it ends, or the connection is closed."""


class FakeApi:
    """The server's state, and how it is to behave."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.pipelines: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring: list[dict[str, Any]] = []
        self.specs: dict[str, dict[str, Any]] = {}
        self.deleted: list[tuple[str, str]] = []
        self.firing: list[int] = []
        """How many recurring runs are enabled, after each change."""
        self.progress: list[dict[str, Any]] = [{"state": "SUCCEEDED"}]
        """What is said of a run, poll by poll; the last for ever."""
        self.faults: list[tuple[str, Fault]] = []
        """For the next requests whose "METHOD path" matches, in this order."""
        self.largest_page = 2
        self.multi_user = False
        self.namespaces = {"ours"}
        self.token: str | None = None
        self.cookie: str | None = None
        self.prefix = ""
        self.host = ""
        self.ended = threading.Event()
        self._polls = 0

    def fail(self, pattern: str, *faults: Fault) -> None:
        """The next requests that match are answered with these."""
        self.faults.extend((pattern, fault) for fault in faults)

    def requests(self, pattern: str) -> list[Asked]:
        """Those whose "METHOD path" matches."""
        return [one for one in self.asked if re.search(pattern, f"{one.method} {one.path}")]

    def fault(self, asked: Asked) -> Fault | None:
        for number, (pattern, fault) in enumerate(self.faults):
            if re.search(pattern, f"{asked.method} {asked.path}"):
                del self.faults[number]
                return fault
        return None

    def answer(self, asked: Asked) -> Any:
        """The JSON for a request."""
        path = asked.path.removeprefix(self.prefix).removeprefix(_API)
        if path == "/healthz":
            return {"multi_user": True} if self.multi_user else {}
        self._authenticate(asked)
        for method, pattern, handle in self._routes():
            if method == asked.method and (match := re.fullmatch(pattern, path)):
                return handle(asked, *match.groups())
        raise Refusal(404, 5, "Not Found")

    def _routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("GET", "/pipelines", self._list_pipelines),
            ("POST", "/pipelines", self._create_pipeline),
            ("POST", "/pipelines/upload_version", self._upload_version),
            ("GET", "/pipelines/([^/]+)/versions", self._list_versions),
            ("GET", "/experiments", self._list_experiments),
            ("POST", "/experiments", self._create_experiment),
            ("GET", "/runs", self._list_runs),
            ("POST", "/runs", self._create_run),
            ("GET", "/runs/([^/]+)", self._get_run),
            ("GET", "/recurringruns", self._list_recurring),
            ("POST", "/recurringruns", self._create_recurring),
            ("POST", "/recurringruns/([^/:]+):(enable|disable)", self._switch_recurring),
            ("DELETE", "/recurringruns/([^/]+)", self._delete_recurring),
        ]

    def _authenticate(self, asked: Asked) -> None:
        wrong_token = self.token and asked.headers.get("authorization") != f"Bearer {self.token}"
        wrong_cookie = self.cookie and asked.headers.get("cookie") != self.cookie
        if wrong_token or wrong_cookie:
            raise Refusal(401, 16, "Request header error: there is no user identity header")

    def _check_namespace(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Refusal(400, 3, "a namespace cannot be empty in multi-user mode")
        if self.multi_user and namespace not in self.namespaces:
            raise Refusal(
                403, 7, f"User 'ann' is not authorized with reason:  (request: ns={namespace})"
            )

    def _page(self, asked: Asked, resource: str, key: str, items: list[Any]) -> dict[str, Any]:
        chosen = _filtered(asked.query.get("filter"), _FILTERS[resource], items)
        first = int(asked.query.get("page_token") or 0)
        size = min(int(asked.query.get("page_size") or 20), self.largest_page)
        answer: dict[str, Any] = {"total_size": len(chosen)}
        if chosen[first : first + size]:
            answer[key] = chosen[first : first + size]
        if first + size < len(chosen):
            answer["next_page_token"] = str(first + size)
        return answer

    def _list_pipelines(self, asked: Asked) -> Any:
        self._check_namespace(asked.query.get("namespace", ""))
        return self._page(asked, "pipelines", "pipelines", self.pipelines)

    def _create_pipeline(self, asked: Asked) -> Any:
        _known(asked.body, {"display_name", "name", "description", "namespace"})
        self._check_namespace(asked.body.get("namespace", ""))
        name = asked.body.get("name") or asked.body["display_name"]
        if any(one["name"] == name for one in self.pipelines):
            raise Refusal(
                409,
                6,
                f"Already exist error: Failed to create a new pipeline. The name {name} already "
                "exist. Please specify a new name",
            )
        made = {"pipeline_id": _id(), "name": name, "display_name": name, "created_at": _now()}
        self.pipelines.append(made)
        return made

    def _list_versions(self, asked: Asked, pipeline: str) -> Any:
        of_it = [one for one in self.versions if one["pipeline_id"] == pipeline]
        return self._page(asked, "versions", "pipeline_versions", of_it)

    def _upload_version(self, asked: Asked) -> Any:
        spec = _read_package(asked)
        pipeline, name = asked.query["pipelineid"], asked.query["name"]
        if any(v["name"] == name and v["pipeline_id"] == pipeline for v in self.versions):
            raise UploadRefusal(409, "Failed to create a pipeline version")
        made = {
            "pipeline_id": pipeline,
            "pipeline_version_id": _id(),
            "name": name,
            "display_name": name,
            "created_at": _now(),
        }
        self.versions.append(made)
        self.specs[made["pipeline_version_id"]] = spec
        return made

    def _list_experiments(self, asked: Asked) -> Any:
        self._check_namespace(asked.query.get("namespace", ""))
        return self._page(asked, "experiments", "experiments", self.experiments)

    def _create_experiment(self, asked: Asked) -> Any:
        _known(asked.body, {"display_name", "description", "namespace"})
        self._check_namespace(asked.body.get("namespace", ""))
        if any(one["display_name"] == asked.body["display_name"] for one in self.experiments):
            raise Refusal(409, 6, "Already exist error: Failed to create a new experiment.")
        made = {"experiment_id": _id(), "created_at": _now(), **asked.body}
        self.experiments.append(made)
        return made

    def _list_runs(self, asked: Asked) -> Any:
        self._check_namespace(asked.query.get("namespace", ""))
        return self._page(asked, "runs", "runs", [*self.runs.values()])

    def _create_run(self, asked: Asked) -> Any:
        _known(asked.body, _RUN_FIELDS)
        self._check_job(asked.body, "Failed to create a new run: Failed to generate the spec: ")
        made = {"run_id": _id(), "state": "PENDING", "created_at": _now(), **asked.body}
        self.runs[made["run_id"]] = made
        return made

    def _check_job(self, body: dict[str, Any], context: str) -> None:
        reference = body["pipeline_version_reference"]
        spec = self.specs[reference["pipeline_version_id"]]
        assert body["experiment_id"] in [one["experiment_id"] for one in self.experiments]
        given = body["runtime_config"].get("parameters", {})
        wanted = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        try:
            _check_parameters(wanted, given)
        except ValueError as error:
            raise Refusal(400, 3, f"{context}Invalid input error: {error}") from error

    def _get_run(self, asked: Asked, run_id: str) -> Any:
        if run_id not in self.runs:
            raise Refusal(
                404, 5, f"Failed to get a run: ResourceNotFoundError: Run {run_id} not found"
            )
        now = self.progress[min(self._polls, len(self.progress) - 1)]
        self._polls += 1
        return self.runs[run_id] | now

    def _list_recurring(self, asked: Asked) -> Any:
        self._check_namespace(asked.query.get("namespace", ""))
        return self._page(asked, "recurringruns", "recurringRuns", self.recurring)

    def _create_recurring(self, asked: Asked) -> Any:
        _known(asked.body, _RECURRING_FIELDS)
        self._check_job(asked.body, "Failed to create a recurring run: ")
        cron = asked.body["trigger"]["cron_schedule"]["cron"]
        if len(cron.split()) not in (5, 6):
            raise Refusal(400, 3, f"Schedule cron is not supported: {cron}")
        enabled = asked.body["mode"] == "ENABLE"
        made = {
            "recurring_run_id": _id(),
            "created_at": _now(),
            "status": "ENABLED" if enabled else "DISABLED",
            **asked.body,
        }
        made.setdefault("service_account", "pipeline-runner")
        self.recurring.append(made)
        self._count_firing()
        return made

    def _switch_recurring(self, asked: Asked, found: str, to: str) -> Any:
        self._recurring(found)["status"] = f"{to}d".upper()
        self._count_firing()
        return {}

    def _delete_recurring(self, asked: Asked, found: str) -> Any:
        self.recurring.remove(self._recurring(found))
        self.deleted.append((found, asked.query.get("propagation_policy", "")))
        self._count_firing()
        return {}

    def _recurring(self, found: str) -> dict[str, Any]:
        for one in self.recurring:
            if one["recurring_run_id"] == found:
                return one
        raise Refusal(404, 5, f"ResourceNotFoundError: recurring run {found} not found")

    def _count_firing(self) -> None:
        self.firing.append(sum(one["status"] == "ENABLED" for one in self.recurring))


class UploadRefusal(Exception):
    """The upload server's errors have another form."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status, self.words = status, words


def _check_parameters(wanted: dict[str, Any], given: dict[str, Any]) -> None:
    for name, about in wanted.items():
        kind = about["parameterType"]
        if name not in given:
            if "defaultValue" not in about and not about.get("isOptional"):
                raise ValueError(
                    f"parameter {name} is not optional, yet has neither default value nor user "
                    "provided value"
                )
        elif not isinstance(given[name], _KINDS[kind]) or (
            kind.startswith("NUMBER") and isinstance(given[name], bool)
        ):
            words = "double or integer" if kind.startswith("NUMBER") else kind.lower()
            raise ValueError(
                f"input parameter {name} requires type {words}, but the parameter value is not of "
                f"{words} value type"
            )
    if extra := [name for name in given if name not in wanted]:
        raise ValueError(f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")


def _read_package(asked: Asked) -> dict[str, Any]:
    file, data = asked.body
    if not file.endswith((".yaml", ".yml")):
        raise UploadRefusal(400, "unknown template format")
    spec = next(iter(yaml.load_all(data, Loader=yaml.CSafeLoader)))
    if spec.get("schemaVersion") != "2.1.0":
        raise UploadRefusal(
            400,
            "KFP only supports schema version 2.1.0, but the pipeline spec has version "
            f"{spec.get('schemaVersion')}",
        )
    return dict(spec)


def _filtered(text: str | None, keys: set[str], items: list[Any]) -> list[Any]:
    chosen = items
    for predicate in json.loads(text)["predicates"] if text else []:
        key, value = predicate["key"], predicate["stringValue"]
        if key not in keys:
            raise Refusal(400, 3, f"no support for filtering on unrecognized field {key!r}")
        if predicate["operation"] == 1:
            chosen = [one for one in chosen if one.get(key, one["display_name"]) == value]
        elif predicate["operation"] == 9:
            chosen = [one for one in chosen if value in one[key]]
        else:
            raise Refusal(400, 3, f"Unknown operation {predicate['operation']}")
    return chosen


def _known(body: dict[str, Any], fields: set[str]) -> None:
    for field in body:
        if field not in fields:
            raise Refusal(400, 3, f'proto: (line 1:2): unknown field "{field}"')


def _id() -> str:
    return str(uuid.uuid4())


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Headers and body in one packet: a second would wait 40 ms for the first's ACK.
    api: FakeApi

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        asked = Asked(self.command, parts.path, query, headers, self._body())
        self.api.asked.append(asked)
        fault = self.api.fault(asked)
        is_done = fault is None or fault is UNHEARD or fault is CUT
        try:
            answer = json.dumps(self.api.answer(asked)) if is_done else ""
            if fault is not None:
                self._fail(fault)
            else:
                self._send(200, answer)
        except Refusal as refusal:
            body = {"code": refusal.code, "message": refusal.words, "details": []}
            self._send(refusal.status, json.dumps(body))
        except UploadRefusal as refusal:
            body = {"error_message": refusal.words, "error_details": refusal.words}
            self._send(refusal.status, json.dumps(body))

    do_POST = do_DELETE = do_GET

    def _body(self) -> Any:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not data:
            return None
        kind = self.headers["content-type"]
        if kind.startswith("application/json"):
            return json.loads(data)
        message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + data)
        (part,) = message.get_payload()
        assert part.get_param("name", header="content-disposition") == "uploadfile"
        return part.get_filename(), part.get_payload(decode=True)

    def _fail(self, fault: Fault) -> None:
        if fault.status == 0:
            self.api.ended.wait()
        if not fault.status:
            self.close_connection = True
            return
        self._send(fault.status, fault.body, fault.kind, fault.headers)

    def _send(
        self,
        status: int,
        body: str,
        kind: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        data = body.encode("latin-1")  # As old proxies do; the API's JSON is ASCII.
        self.send_response(status)
        for name, value in (("content-type", kind), *headers):
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: the tests look at everything that is written."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any):
        self._connections: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, address)

    def close_connections(self) -> None:
        """As a process that ends does, those that are kept alive too."""
        for one in self._connections:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that goes away, or that refuses the certificate, is no error of ours."""


@contextmanager
def served(
    api: FakeApi, certificate: tuple[Path, Path] | None = None, port: int = 0
) -> Iterator[FakeApi]:
    """Serves on a free port; `api.host` is its address.

    Args:
        api: What is served.
        certificate: For TLS: the chain and the key.
        port: The port, in place of a free one.
    """
    handler = type("Handler", (_Handler,), {"api": api})
    server = _Server(("127.0.0.1", port), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    api.host = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.ended.set()
        server.shutdown()
        server.close_connections()
        server.server_close()
        thread.join()
