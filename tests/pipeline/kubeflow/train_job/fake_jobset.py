"""What Kubeflow Trainer, JobSet and the Job controller make of a TrainJob, with processes as pods.

As read in the sources of Trainer 2.3, JobSet 0.12 and the Job controller: the trainer's image,
command and arguments replace those of the runtime's container `node`, its variables are added; the
number of nodes becomes the Job's parallelism; a failed pod fails the Job at `backoffLimit: 0`, with
another reason if its exit code is one of the `podFailurePolicy`; the JobSet's `failurePolicy` then
starts all pods anew, or ends.
"""

import copy
import os
import re
import socket
import sys
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.pipeline.kubeflow.train_job.fake_pod import FakePod

Document = dict[str, Any]
_NOT_IN_IMAGES = ("PYTHONPATH", "TF_CONFIG", "KUBECONFIG", "KFP_POD_NAME", "KFP_POD_UID")


class FakeJobSet:
    """The pods of one TrainJob."""

    def __init__(self, job: Document, runtime: Document, image: Path, unschedulable: str):
        self.name, self._image, self._unschedulable = job["metadata"]["name"], image, unschedulable
        trainer = job["spec"]["trainer"]
        self._spec = copy.deepcopy(runtime["spec"]["template"]["spec"])
        (self._job,) = [each["template"] for each in self._spec["replicatedJobs"]]
        label = self._job["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"]
        assert label == "trainer"
        (self._container,) = self._job["spec"]["template"]["spec"]["containers"]
        assert self._container["name"] == "node"
        for field in ("image", "command", "args"):
            self._container[field] = trainer[field]
        self._container["env"] = trainer["env"]
        self._nodes = trainer.get("numNodes") or runtime["spec"]["mlPolicy"]["numNodes"]
        self.pods: list[FakePod] = []
        self.all_pods: list[FakePod] = []
        self.conditions: list[Document] = []
        self.restarts = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def said(self) -> str:
        """The logs of all pods that there were."""
        return "\n".join(pod.text() for pod in list(self.all_pods))

    def end(self) -> None:
        """Ends the pods, as when the TrainJob is deleted."""
        self._is_over.set()
        self._thread.join()
        self._end_pods()

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._start_pods()
            reason = self._watch()
            if reason is None or not self._starts_again(reason):
                return
            self._end_pods()
            self.pods, self.restarts = [], self.restarts + 1

    def _end_pods(self) -> None:
        ends = [threading.Thread(target=pod.end) for pod in self.pods]
        for end in ends:
            end.start()
        for end in ends:
            end.join()

    def _start_pods(self) -> None:
        places = dict(zip(self._hosts(), _free_ports(self._nodes), strict=True))
        for index in range(self._nodes):
            name = f"{self.name}-node-0-{index}-{uuid.uuid4().hex[:5]}"
            labels = {"jobset.sigs.k8s.io/jobset-name": self.name}
            pod = FakePod(name, index, labels, self._unschedulable)
            if not self._unschedulable:
                command = self._container["command"] + self._container["args"]
                pod.start(command, self._environment(index, places), self._image)
            self.pods.append(pod)
            self.all_pods.append(pod)

    def _hosts(self) -> list[str]:
        return [f"{self.name}-node-0-{index}.{self.name}" for index in range(self._nodes)]

    def _environment(self, index: int, places: dict[str, int]) -> dict[str, str]:
        """The container's variables; the cluster's DNS is this: names become this machine's."""
        assert self._job["spec"]["completionMode"] == "Indexed"
        made = {k: v for k, v in os.environ.items() if k not in _NOT_IN_IMAGES}
        made["PATH"] = f"{os.path.dirname(sys.executable)}:{made['PATH']}"
        for variable in self._container["env"]:
            value = variable["value"]
            for host, port in places.items():
                value = re.sub(rf"\b{re.escape(host)}:\d+", f"127.0.0.1:{port}", value)
            made[variable["name"]] = value
        return made | {"JOB_COMPLETION_INDEX": str(index), "CUDA_VISIBLE_DEVICES": "-1"}

    def _watch(self) -> str | None:
        """Why the Job failed; None if it did not."""
        while not self._is_over.is_set():
            codes = [pod.code for pod in self.pods]
            if all(code == 0 for code in codes):
                self._end_with("Complete", "AllJobsCompleted", "jobset completed successfully")
                return None
            if any(codes):
                return self._reason({code for code in codes if code})
            time.sleep(0.05)
        return None

    def _reason(self, codes: set[int]) -> str:
        assert self._job["spec"]["backoffLimit"] == 0
        assert self._job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        for rule in self._job["spec"]["podFailurePolicy"]["rules"]:
            assert rule["action"] == "FailJob"
            if codes & set(rule["onExitCodes"]["values"]):
                return "PodFailurePolicy"
        return "BackoffLimitExceeded"

    def _starts_again(self, reason: str) -> bool:
        policy = self._spec["failurePolicy"]
        job = f"(first failed job: {self.name}-node-0)"
        for rule in policy["rules"]:
            if reason in rule["onJobFailureReasons"]:
                assert rule["action"] == "FailJobSet"
                text = f"jobset failed due to FailJobSet failure policy action {job}"
                self._end_with("Failed", "FailJobSetFailurePolicyAction", text)
                return False
        if self.restarts >= policy["maxRestarts"]:
            text = f"jobset failed due to reaching max number of restarts {job}"
            self._end_with("Failed", "ReachedMaxRestarts", text)
            return False
        return True

    def _end_with(self, kind: str, reason: str, message: str) -> None:
        if kind == "Failed":  # what still runs is ended
            self._end_pods()
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        self.conditions = [condition]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in opened]
