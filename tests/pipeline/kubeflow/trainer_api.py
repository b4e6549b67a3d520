"""A Kubernetes API over HTTP that makes of a TrainJob what Kubeflow Trainer, JobSet and Job would.

Its pods are real processes of this machine. As read in the sources of Trainer 2.3 and JobSet 0.12;
nothing here was compared with a cluster.
"""

import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests import small

Json = dict[str, Any]


class Pod:
    """A worker's process, and its log."""

    def __init__(self, name: str, index: int, command: list[str], environment: Json, image: Path):
        self.name, self.index, self.lines = name, index, list[str]()
        self.process = subprocess.Popen(
            [sys.executable, *command[1:]],
            cwd=image,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z {line}")

    def code(self) -> int | None:
        """Its exit code, once its log is complete."""
        if self.process.poll() is None or self._reader.is_alive():
            return None
        return self.process.returncode

    def described(self, job: str) -> Json:
        """The Pod as the API shows it."""
        code = self.code()
        state: Json = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        status = {"name": "node", "ready": True, "restartCount": 0, "image": "", "imageID": ""}
        annotations = {"batch.kubernetes.io/job-completion-index": str(self.index)}
        made = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        metadata = {"name": self.name, "annotations": annotations, "creationTimestamp": made}
        return {
            "metadata": metadata | {"labels": {"jobset.sigs.k8s.io/jobset-name": job}},
            "spec": {"containers": [{"name": "node"}]},
            "status": {"containerStatuses": [status | {"state": state}]},
        }


class Cluster:
    """What is in the namespace."""

    def __init__(self, image: Path):
        self.image, self.runtimes = image, dict[str, Json]()
        self.jobs: dict[str, Json] = {}
        self.pods: list[Pod] = []
        self.all_pods: list[Pod] = []
        self.restarts = 0

    def apply(self, manifests: str) -> None:
        """What kubectl apply does."""
        for document in yaml.safe_load_all(manifests):
            if document["kind"] == "TrainingRuntime":
                self.runtimes[document["metadata"]["name"]] = document

    def create(self, job: Json) -> None:
        """Makes a TrainJob and starts its workers."""
        self.jobs[job["metadata"]["name"]] = job | {"status": {"conditions": []}}
        threading.Thread(target=self._run, args=[job["metadata"]["name"]], daemon=True).start()

    def _run(self, name: str) -> None:
        job = self.jobs[name]
        runtime = self.runtimes[job["spec"]["runtimeRef"]["name"]]["spec"]["template"]["spec"]
        policy = runtime["failurePolicy"]
        [template] = [each["template"]["spec"] for each in runtime["replicatedJobs"]]
        [rule] = template["podFailurePolicy"]["rules"]
        while True:
            self._start(name, job)
            while not any(codes := [p.code() for p in self.pods]) and any(c != 0 for c in codes):
                time.sleep(0.05)
            if not any(codes):
                return self._end(name, "Complete", "AllJobsCompleted")
            if any(code in rule["onExitCodes"]["values"] for code in codes):
                self.stop()
                return self._end(name, "Failed", "FailJobSetFailurePolicyAction")
            self.stop()
            if name not in self.jobs or self.restarts >= policy["maxRestarts"]:
                return self._end(name, "Failed", "ReachedMaxRestarts")
            self.restarts += 1

    def _start(self, name: str, job: Json) -> None:
        trainer = job["spec"]["trainer"]
        ports = iter(_free_ports(trainer["numNodes"]))
        variables = {one["name"]: one["value"] for one in trainer["env"]}
        addresses = re.sub(r"[^,]+", lambda _: f"127.0.0.1:{next(ports)}", variables[_ADDRESSES])
        variables |= {_ADDRESSES: addresses}
        base = {k: v for k, v in small.environment_of_a_copy().items() if k != "KUBECONFIG"}
        self.pods = []
        for index in range(trainer["numNodes"]):
            own = {"JOB_COMPLETION_INDEX": str(index), "CUDA_VISIBLE_DEVICES": "-1"}
            command = trainer["command"] + trainer["args"]
            pod_name = f"{name}-node-0-{index}-{len(self.all_pods):05}"
            pod = Pod(pod_name, index, command, base | variables | own, self.image)
            self.pods.append(pod)
            self.all_pods.append(pod)

    def _end(self, name: str, kind: str, reason: str) -> None:
        if name in self.jobs:
            condition = {"type": kind, "status": "True", "reason": reason, "message": "it ended"}
            self.jobs[name]["status"]["conditions"].append(condition)

    def stop(self) -> None:
        """Ends the pods."""
        for pod in self.pods:
            if pod.process.poll() is None:
                pod.process.send_signal(signal.SIGTERM)
        for pod in self.pods:
            try:
                pod.process.wait(30)
            except subprocess.TimeoutExpired:
                pod.process.kill()

    def delete(self, name: str) -> None:
        """Deletes a TrainJob, and its pods with it."""
        self.jobs.pop(name, None)
        self.stop()


_ADDRESSES = "TRAIN_JOB_ADDRESSES"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def served(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Serves the API; yields a kube-config that leads there."""
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    name = {"name": "here"}
    host = {"server": f"http://127.0.0.1:{server.server_port}"}
    context = {"cluster": "here", "user": "here", "namespace": "steps"}
    config = {
        "current-context": "here",
        "clusters": [name | {"cluster": host}],
        "users": [name | {"user": {}}],
        "contexts": [name | {"context": context}],
    }
    path = folder / "kube-config"
    path.write_text(yaml.safe_dump(config))
    try:
        yield path
    finally:
        cluster.jobs.clear()
        cluster.stop()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:
        *_, kind, name = urlsplit(self.path).path.split("/")
        if name == "log":
            [pod] = [one for one in self.cluster.all_pods if one.name == kind]
            lines = pod.lines[-1:] if "tailLines" in self.path else pod.lines
            return self._send(200, "".join(lines), "text/plain")
        if name == "pods":
            job = self.path.rpartition("%3D")[2]
            pods = [pod.described(job) for pod in list(self.cluster.pods)]
            return self._json({"kind": "PodList", "apiVersion": "v1", "items": pods})
        found = (self.cluster.runtimes if kind == "trainingruntimes" else self.cluster.jobs).get(
            name
        )
        return self._json(copy.deepcopy(found)) if found else self._missing(name)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.cluster.create(body)
        self._json(body, 201)

    def do_DELETE(self) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        if name not in self.cluster.jobs:
            return self._missing(name)
        self.cluster.delete(name)
        self._json({})

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _missing(self, name: str) -> None:
        self._json({"message": f'"{name}" not found', "details": {"name": name}}, 404)

    def _json(self, content: Json, code: int = 200) -> None:
        self._send(code, json.dumps(content), "application/json")

    def _send(self, code: int, text: str, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


def until(holds: Any, seconds: float = 300.0) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def environment(kube_config: Path) -> dict[str, str]:
    """Of the step that makes a TrainJob."""
    pod = {"KFP_POD_NAME": "the-steps-pod", "KFP_POD_UID": "1234"}
    return pod | {"KUBECONFIG": str(kube_config), "USER": os.environ.get("USER", "me")}
