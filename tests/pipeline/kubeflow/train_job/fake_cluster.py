"""A stand-in for a cluster's API: real HTTP, real processes, and rights as the manifests give them.

It is not Kubernetes: what it does was read in the sources, and nothing here was compared with a
cluster.
"""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.pipeline.kubeflow.train_job.fake_jobset import FakeJobSet

Document = dict[str, Any]
NAMESPACE = "steps"
_OURS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}"
_PLACE = re.compile(
    rf"(?:{_OURS}|/api/v1/namespaces/{NAMESPACE})/(?P<kind>\w+)(/(?P<name>[^/]+))?(/(?P<sub>log))?$"
)


class FakeCluster:
    """What is in the namespace."""

    def __init__(self, image: Path):
        """Takes the folder that stands for the steps' image."""
        self._image = image
        self.has_trainer, self.unschedulable = True, ""
        self.runtimes: dict[str, Document] = {}
        self.rules: list[Document] = []
        self.jobs: dict[str, Document] = {}
        self.made: list[Document] = []
        """Every TrainJob that was created."""
        self.sets: dict[str, FakeJobSet] = {}
        self.is_down, self.refused = False, 0
        self.loses_an_answer = False

    def apply(self, manifests: str) -> None:
        """What kubectl apply does."""
        for document in yaml.safe_load_all(manifests):
            if document["kind"] == "TrainingRuntime":
                self.runtimes[document["metadata"]["name"]] = document
            if document["kind"] == "Role":
                self.rules = document["rules"]

    def allows(self, verb: str, kind: str) -> bool:
        """Whether the step's service account may do this."""
        group = "" if kind.startswith("pods") else "trainer.kubeflow.org"
        return any(
            group in r["apiGroups"] and kind in r["resources"] and verb in r["verbs"]
            for r in self.rules
        )

    def create(self, job: Document) -> None:
        """Makes a TrainJob, and what its controllers make of it."""
        name = job["metadata"]["name"]
        runtime = self.runtimes[job["spec"]["runtimeRef"]["name"]]
        self.sets[name] = FakeJobSet(job, runtime, self._image, self.unschedulable)
        self.jobs[name] = job
        self.made.append(job)

    def delete(self, name: str) -> None:
        """Ends the pods, and then the TrainJob is gone."""
        job = self.jobs[name]
        job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

        def vanish() -> None:
            self.sets[name].end()
            self.jobs.pop(name, None)

        threading.Thread(target=vanish, daemon=True).start()

    def close(self) -> None:
        """Ends all that runs."""
        for each in self.sets.values():
            each.end()
            for pod in each.all_pods:
                pod.kill()


@contextmanager
def served(cluster: FakeCluster, folder: Path) -> Iterator[Path]:
    """Serves its API; yields a kube-config that leads there."""
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    config = folder / "kube-config"
    config.write_text(_kube_config(f"http://127.0.0.1:{server.server_port}"))
    try:
        yield config
    finally:
        cluster.close()
        server.shutdown()
        server.server_close()


def _kube_config(host: str) -> str:
    context = {"cluster": "fake", "user": "fake", "namespace": NAMESPACE}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": host}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": context}],
        }
    )


class _Handler(BaseHTTPRequestHandler):
    cluster: FakeCluster
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        place, query = _PLACE.match(address.path), parse_qs(address.query)
        if self.cluster.is_down:
            self.cluster.refused += 1
            self.close_connection = True  # without a word
            return
        if place is None:
            return self._page_not_found()
        kind, name = place["kind"] + ("/log" if place["sub"] else ""), place["name"] or ""
        verb = {"GET": "get" if name else "list", "POST": "create", "DELETE": "delete"}[method]
        if not self.cluster.allows(verb, kind):
            user = f"system:serviceaccount:{NAMESPACE}:pipeline-runner"
            text = f'{kind} is forbidden: User "{user}" cannot {verb} resource "{kind}"'
            return self._refuse(403, "Forbidden", text, name)
        if not (self.cluster.has_trainer or kind.startswith("pods")):
            return self._page_not_found()
        serve = getattr(self, f"_{verb}_{kind.replace('/', '_')}")
        serve(name, query, json.loads(body or "{}"))

    def _get_trainingruntimes(self, name: str, query: Document, body: Document) -> None:
        found = self.cluster.runtimes.get(name)
        self._send(found) if found else self._not_found("trainingruntimes", name)

    def _get_trainjobs(self, name: str, query: Document, body: Document) -> None:
        if name not in self.cluster.jobs:
            return self._not_found("trainjobs", name)
        status = {"conditions": self.cluster.sets[name].conditions}
        self._send(self.cluster.jobs[name] | {"status": status})

    def _create_trainjobs(self, name: str, query: Document, body: Document) -> None:
        name = body["metadata"]["name"]
        if name in self.cluster.jobs:
            return self._refuse(409, "AlreadyExists", f'trainjobs "{name}" already exists', name)
        self.cluster.create(body)
        if self.cluster.loses_an_answer:
            self.cluster.loses_an_answer = False
            self.close_connection = True
            return
        self._send(body, 201)

    def _delete_trainjobs(self, name: str, query: Document, body: Document) -> None:
        if name not in self.cluster.jobs:
            return self._not_found("trainjobs", name)
        assert query["propagationPolicy"] == ["Foreground"]
        job = self.cluster.jobs[name]
        self.cluster.delete(name)
        self._send(job)

    def _list_pods(self, name: str, query: Document, body: Document) -> None:
        key, _, value = query["labelSelector"][0].partition("=")
        pods = [
            pod.described()
            for each in self.cluster.sets.values()
            for pod in each.pods
            if pod.labels.get(key) == value
        ]
        self._send({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})

    def _get_pods_log(self, name: str, query: Document, body: Document) -> None:
        pods = [p for s in self.cluster.sets.values() for p in s.all_pods if p.name == name]
        assert query["container"] == ["node"]
        assert query["timestamps"] == ["True"]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        since, tail = (int(query[n][0]) if n in query else None for n in _NUMBERS)
        with contextlib.suppress(ConnectionError):  # who listened may be gone
            for line in pods[0].log(query["follow"] == ["True"], since, tail):
                if self.cluster.is_down:
                    self.close_connection = True
                    return
                data = line.encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

    def _not_found(self, kind: str, name: str) -> None:
        text = f'{kind}.trainer.kubeflow.org "{name}" not found'
        self._refuse(404, "NotFound", text, name)

    def _page_not_found(self) -> None:
        self._write(404, b"404 page not found\n", "text/plain")

    def _refuse(self, code: int, reason: str, message: str, name: str) -> None:
        status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
        self._send(status | {"message": message, "details": {"name": name}}, code)

    def _send(self, content: Document, code: int = 200) -> None:
        self._write(code, json.dumps(content).encode(), "application/json")

    def _write(self, code: int, data: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


_NUMBERS = ("sinceSeconds", "tailLines")
