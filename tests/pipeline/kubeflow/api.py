"""An HTTP server of JSON, and what it answers in place of Kubeflow Pipelines' API (2.17).

`Api` keeps what it is sent, and lists it, with the shapes of kfp_server_api. The rows of a run's
steps are Argo's nodes: a step `trainer` has a row `trainer-driver`, then `trainer`, and one called
`executor`, whose child names the node of the log.
"""

import json
import re
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
CREATED = "2026-11-23T09:29:39Z"
_IDS = {
    "pipelines": "pipeline_id",
    "pipeline_versions": "pipeline_version_id",
    "experiments": "experiment_id",
    "runs": "run_id",
    "recurringRuns": "recurring_run_id",
}


class Api:
    """The server's state, and how it behaves."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Json]] = []
        """Method, path and query of each request."""
        self.headers: Json = {}
        self.kept: dict[str, list[Json]] = defaultdict(list)
        """What was sent, by the keys of `_IDS`."""
        self.polls: list[Json] = [{"state": "SUCCEEDED"}]
        """What is said of a run, time by time; the last for ever."""
        self.log: str | None = ""
        self.refusals: list[tuple[str, int, str, Json]] = []
        """For the next requests that match: a pattern, status, body and headers."""
        self.host = ""

    def keep(self, kind: str, **what: Any) -> Json:
        """Keeps something; it comes back with its id."""
        made = {_IDS[kind]: f"{kind}-{len(self.kept[kind])}", "created_at": CREATED} | what
        self.kept[kind].append(made)
        return made

    def answer(self, method: str, path: str, query: Json, body: Any) -> tuple[int, str, Json]:
        """Status, body and headers for a request."""
        self.asked.append((method, path, query))
        for refusal in self.refusals:
            pattern, *answer = refusal
            if re.search(pattern, f"{method} {path}"):
                self.refusals.remove(refusal)
                return tuple(answer)
        if "/nodes/" in path:
            plain = {"Content-Type": "text/plain"}
            return (404, "{}", {}) if self.log is None else (200, self.log, plain)
        return 200, json.dumps(self._found(method, path, query, body)), {}

    def _found(self, method: str, path: str, query: Json, body: Any) -> Json:
        kind, *rest = path.removeprefix("/apis/v2beta1/").split("/")
        kind = {"recurringruns": "recurringRuns"}.get(kind, kind)
        if kind == "healthz":
            return {"multi_user": False}
        if rest == ["upload_version"]:
            pipeline, name = query["pipelineid"][0], query["name"][0]
            return self.keep("pipeline_versions", pipeline_id=pipeline, display_name=name)
        if method == "POST":
            return self.keep(kind, **body)
        if method == "DELETE":
            self.kept[kind] = [one for one in self.kept[kind] if one[_IDS[kind]] != rest[0]]
            return {}
        if kind == "runs" and rest:
            poll = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
            return {"run_id": rest[0], "created_at": CREATED, "finished_at": CREATED} | poll
        kind = "pipeline_versions" if rest[1:] == ["versions"] else kind
        return {kind: self.kept[kind]} if self.kept[kind] else {}


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
def served(api: Any, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serves what `api.answer` says, as `Api` has it; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            is_json = "json" in (self.headers.get("Content-Type") or "")
            body = json.loads(data) if data and is_json else {}
            api.headers = dict(self.headers)
            query = parse_qs(address.query)
            status, text, headers = api.answer(self.command, address.path, query, body)
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
