"""An HTTP server that answers as Kubeflow Pipelines' API (2.17) does, with its shapes.

It keeps what it is sent. The rows of a run's steps are Argo's nodes: a step `trainer` has a row
`trainer-driver`, then `trainer`, and one called `executor`, whose child names the node of the log.
"""

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
_V2 = "/apis/v2beta1"
CREATED = "2026-11-23T09:29:39Z"


class Api:
    """The server's state, and how it behaves."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Json]] = []
        """Method, path and body of each request."""
        self.headers: Json = {}
        self.pipelines: list[Json] = []
        self.versions: list[Json] = []
        self.runs: list[Json] = []
        self.recurring: list[Json] = []
        self.polls: list[Json] = [{"state": "SUCCEEDED"}]
        """What is said of a run, time by time; the last for ever."""
        self.log: str | None = ""
        self.refusals: list[tuple[str, int, str, Json]] = []
        """For the next requests that match: a pattern, status, body and headers."""
        self.host = ""

    def answer(self, method: str, path: str, query: Json, body: Any) -> Any:
        """The JSON for a request."""
        if path.startswith("/apis/v1alpha1/runs/"):
            return self.log
        kind, *rest = path.removeprefix(f"{_V2}/").split("/")
        if kind == "healthz":
            return {"multi_user": False}
        if method == "GET":
            return self._list(kind, rest, query)
        if method == "DELETE":
            self.recurring = [one for one in self.recurring if one["recurring_run_id"] != rest[0]]
            return {}
        return self._make(kind, rest, query, body)

    def _list(self, kind: str, rest: list[str], query: Json) -> Json:
        if kind == "runs" and rest:
            poll = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
            return {"run_id": rest[0], "created_at": CREATED, "finished_at": CREATED} | poll
        if kind == "pipelines" and rest[1:] == ["versions"]:
            return {"pipeline_versions": self.versions}
        found: list[Json] = {"pipelines": self.pipelines, "runs": self.runs}.get(kind, [])
        if kind == "recurringruns":
            return {"recurringRuns": self.recurring}
        return {kind: found} if found else {}

    def _make(self, kind: str, rest: list[str], query: Json, body: Any) -> Json:
        name = uuid.uuid4().hex[:8]
        if kind == "pipelines" and rest == ["upload_version"]:
            made = {
                "pipeline_id": query["pipelineid"][0],
                "pipeline_version_id": f"version-{name}",
                "display_name": query["name"][0],
                "created_at": f"2026-11-23T09:29:{len(self.versions):02}Z",
            }
            self.versions.append(made)
        elif kind == "pipelines":
            made = {"pipeline_id": f"pipeline-{name}", "display_name": body["display_name"]}
            self.pipelines.append(made)
        elif kind == "experiments":
            made = {"experiment_id": f"experiment-{name}", "display_name": body["display_name"]}
        elif kind == "runs":
            made = body | {"run_id": f"run-{name}", "created_at": CREATED}
            self.runs.append(made)
        else:
            made = body | {"recurring_run_id": f"recurring-{name}"}
            self.recurring.append(made)
        return made


def rows(**steps: str) -> Json:
    """A run's details: each step as `state` of its task, or `cached`; names with `_` for `-`."""
    found = []
    for number, (step, state) in enumerate(steps.items()):
        name = step.replace("_", "-")
        begin, end = f"2026-11-23T09:{number:02}:10Z", f"2026-11-23T09:{number:02}:52Z"
        times = {"start_time": begin, "end_time": begin if state == "cached" else end}
        own = {"cached": ("SUCCEEDED", "SKIPPED")}.get(state, (state, state))
        node = {"pod_name": f"small-x7k2p-{1000 + number}"}
        found += [
            {"display_name": f"{name}-driver", "state": "SUCCEEDED"} | times,
            {"display_name": name, "state": own[0]} | times,
            {"display_name": "executor", "state": own[1], "child_tasks": [node]} | times,
            {"start_time": begin},  # what the launcher files for its cache
        ]
    return {"run_details": {"task_details": found}}


@contextmanager
def served(api: Api) -> Iterator[str]:
    """Serves it; yields the address."""
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    api.host = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api.host
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: Api

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _serve(self, method: str) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        is_json = "json" in (self.headers.get("Content-Type") or "")
        body = json.loads(data) if data and is_json else {}
        self.api.asked.append((method, self.path, body))
        self.api.headers = dict(self.headers)
        for refusal in self.api.refusals:
            pattern, status, text, headers = refusal
            if re.search(pattern, f"{method} {address.path}"):
                self.api.refusals.remove(refusal)
                return self._send(status, text, headers)
        found = self.api.answer(method, address.path, parse_qs(address.query), body)
        if found is None:
            return self._send(404, "{}", {})
        if isinstance(found, str):
            return self._send(200, found, {"Content-Type": "text/plain"})
        self._send(200, json.dumps(found), {})

    def _send(self, status: int, text: str, headers: Json) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())
