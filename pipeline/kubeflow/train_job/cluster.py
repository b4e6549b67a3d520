"""The cluster's API, as far as the Trainer's step needs it."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
from kubernetes.client import ApiException

from components.errors import PipelineStop
from pipeline.kubeflow.train_job.job import FINGERPRINT, GROUP, NODE, VERSION

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_ANSWER_SECONDS = (5.0, 30.0)
"""To connect, and to be answered."""
_OUTAGE_SECONDS = 600.0
"""An API that does not answer for so long is given up."""
_VANISH_SECONDS = 300.0
_INDEX = "batch.kubernetes.io/job-completion-index"
_ON_THE_WAY = ("ContainerCreating", "PodInitializing")


class NotThere(Exception):
    """There is no object of this name, or it is there already."""


@dataclass(frozen=True)
class Pod:
    """A worker's pod.

    Attributes:
      name: the pod's, another one after each start of the group.
      worker: the worker's number.
      has_started: whether its container runs, or has run.
      exit_code: of its container, once that has ended.
      trouble: why it does not start, if it says so.
    """

    name: str
    worker: int
    has_started: bool
    exit_code: int | None
    trouble: str


class Cluster:
    """The namespace that the step runs in."""

    def __init__(self, manifests: str, beat: Callable[[], None], outage: float = _OUTAGE_SECONDS):
        """Reads how the API is reached: from KUBECONFIG if that is set, else as a pod does.

        Args:
          manifests: the file that a person has to apply if something is missing.
          beat: is called whenever the API is asked.
          outage: seconds; an API that does not answer for so long is given up.

        Raises:
          PipelineStop: this is no cluster.
        """
        configuration = kubernetes.client.Configuration()
        configuration.retries = False  # `_ask` tries again
        try:
            self.namespace = _connect(configuration)
        except (kubernetes.config.ConfigException, OSError) as error:
            raise PipelineStop(
                "With training.strategy=multi_worker the Trainer's step makes a TrainJob: it runs "
                f"in a cluster only, or with KUBECONFIG ({error})."
            ) from error
        api = kubernetes.client.ApiClient(configuration)
        self._objects = kubernetes.client.CustomObjectsApi(api)
        self._core = kubernetes.client.CoreV1Api(api)
        self._beat, self._outage = beat, outage
        self._apply = (
            f"Run: kubectl apply -n {self.namespace} -f build/{manifests} (make compile writes it)"
        )

    def check_runtime(self, name: str, fingerprint: str) -> None:
        """Checks that the TrainingRuntime is the one that the package was compiled with.

        Raises:
          PipelineStop: it is missing, or another one, or Kubeflow Trainer is missing.
        """
        get = self._objects.get_namespaced_custom_object
        try:
            found = self._ask(get, *self._all("trainingruntimes"), name)
        except NotThere as error:
            text = f"The cluster has no TrainingRuntime '{name}'. {self._apply}"
            raise PipelineStop(text) from error
        if found["metadata"].get("annotations", {}).get(FINGERPRINT) != fingerprint:
            raise PipelineStop(
                f"The cluster's TrainingRuntime '{name}' was made with other settings than this "
                f"package. {self._apply}"
            )

    def create(self, manifest: dict[str, Any]) -> None:
        """Creates a TrainJob.

        Raises:
          PipelineStop: the cluster refuses it.
        """
        create = self._objects.create_namespaced_custom_object
        with contextlib.suppress(NotThere):  # made by a request whose answer was lost
            self._ask(create, *self._all("trainjobs"), manifest)

    def find(self, name: str) -> dict[str, Any] | None:
        """A TrainJob as it is now, or None."""
        try:
            get = self._objects.get_namespaced_custom_object
            return dict(self._ask(get, *self._all("trainjobs"), name))
        except NotThere:
            return None

    def delete(self, name: str) -> None:
        """Deletes a TrainJob if it is there; it vanishes when its pods have."""
        delete = self._objects.delete_namespaced_custom_object
        with contextlib.suppress(NotThere):
            self._ask(delete, *self._all("trainjobs"), name, propagation_policy="Foreground")

    def delete_and_wait(self, name: str) -> None:
        """Deletes a TrainJob if it is there, and waits until its pods have ended.

        Raises:
          PipelineStop: they don't.
        """
        self.delete(name)
        deadline = time.monotonic() + _VANISH_SECONDS
        while self.find(name) is not None:
            if time.monotonic() > deadline:
                raise PipelineStop(
                    f"The TrainJob {name} of an earlier attempt was deleted, and is still there "
                    f"after {_VANISH_SECONDS:.0f} s. See: kubectl describe trainjob {name}"
                )
            time.sleep(0.5)

    def pods(self, name: str) -> list[Pod]:
        """The workers' pods, in order: of each the newest, without those being deleted."""
        label = f"jobset.sigs.k8s.io/jobset-name={name}"
        found = self._ask(self._core.list_namespaced_pod, self.namespace, label_selector=label)
        newest: dict[int, Any] = {}
        for pod in sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp):
            index = (pod.metadata.annotations or {}).get(_INDEX)
            if index is not None and pod.metadata.deletion_timestamp is None:
                newest[int(index)] = pod
        return [_pod(newest[worker], worker) for worker in sorted(newest)]

    def log(self, pod: str, **which: int) -> list[str]:
        """Lines of a worker's log, each after its time and a space; none if it can't be read."""
        read = self._core.read_namespaced_pod_log
        try:
            text = self._ask(read, pod, self.namespace, container=NODE, timestamps=True, **which)
        except (NotThere, PipelineStop):  # the training does not need its log
            return []
        return str(text).splitlines()

    def _all(self, plural: str) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, plural

    def _ask(self, call: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Asks, again and again while the API does not answer."""
        deadline, wait = time.monotonic() + self._outage, 0.2
        while True:
            self._beat()
            try:
                return call(*values, **named, _request_timeout=_ANSWER_SECONDS)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                if isinstance(error, ApiException) and error.status < 500 and error.status != 429:
                    raise _refusal(error, self._apply) from error
                if time.monotonic() > deadline:
                    text = f"The cluster's API did not answer for {self._outage:.0f} s: {error}"
                    raise PipelineStop(text) from error
            time.sleep(wait)
            wait = min(wait * 1.5, 5.0)


def _connect(configuration: Any) -> str:
    """Fills in the configuration; returns the namespace."""
    if file := os.environ.get("KUBECONFIG"):
        kubernetes.config.load_kube_config(file, client_configuration=configuration)
        _, active = kubernetes.config.list_kube_config_contexts(file)
        return str(active["context"].get("namespace", "default"))
    kubernetes.config.load_incluster_config(client_configuration=configuration)
    return _NAMESPACE.read_text().strip()


def _pod(pod: Any, worker: int) -> Pod:
    statuses = pod.status.container_statuses or []
    state = next((status.state for status in statuses if status.name == NODE), None)
    ended, waiting = state and state.terminated, state and state.waiting
    trouble = ""
    if waiting and waiting.reason not in _ON_THE_WAY:
        trouble = f"{waiting.reason}: {waiting.message or 'no more is said'}"
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            trouble = f"{condition.reason}: {condition.message}"
    return Pod(
        name=pod.metadata.name,
        worker=worker,
        has_started=bool(ended or (state and state.running)),
        exit_code=ended.exit_code if ended else None,
        trouble=trouble,
    )


def _refusal(error: ApiException, apply: str) -> Exception:
    """The exception for an answer that stays."""
    try:
        status = dict(json.loads(error.body or "{}"))
    except (ValueError, TypeError):
        status = {}
    text = str(status.get("message") or error.body or error.reason).strip()
    if error.status == 409 or (error.status == 404 and status.get("details", {}).get("name")):
        return NotThere(text)
    if error.status == 404:
        return PipelineStop(
            "The cluster has no Kubeflow Trainer v2, which runs the workers of a Trainer step "
            "(training.strategy=multi_worker). Have it installed: "
            "https://trainer.kubeflow.org/en/latest/operator-guides/installation.html, "
            f"or set training.strategy=auto. ({text})"
        )
    if error.status in (401, 403) and "admission webhook" not in text:
        return PipelineStop(f"The step's service account may not do this: {text}. {apply}")
    return PipelineStop(f"The cluster refuses the Trainer's workers: {text}")
