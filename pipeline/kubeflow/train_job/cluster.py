"""The cluster's API, as far as the step needs it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
from kubernetes.client import ApiException

from components.errors import PipelineStop
from pipeline.kubeflow.package import Document
from pipeline.kubeflow.train_job import names, pods
from pipeline.kubeflow.train_job.pods import Pod
from pipeline.kubeflow.train_job.refusals import (
    AlreadyThere,
    NotThere,
    is_forbidden,
    is_passing,
    refusal,
)

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_ANSWER_SECONDS = (5.0, 30.0)
"""To connect, and to be answered."""
_LINE_SECONDS = (5.0, 60.0)
"""To connect, and for a line of a log; after that it is asked for anew."""
_OUTAGE_SECONDS = 600.0
"""An API that does not answer for so long is given up."""
_VANISH_SECONDS = 300.0


class LogInterrupted(Exception):
    """A pod's log cannot be read on: no such pod, not started yet, or the connection broke."""


class Cluster:
    """The namespace that the step runs in."""

    def __init__(self, manifests: str, outage_seconds: float = _OUTAGE_SECONDS):
        """Reads how the API is reached: from KUBECONFIG if that is set, else as a pod does.

        Args:
          manifests: the file that a person has to apply if something is missing.
          outage_seconds: an API that does not answer for so long is given up.

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
        self._apply = (
            f"Run: kubectl apply -n {self.namespace} -f build/{manifests} (make compile writes it)"
        )
        self._outage_seconds = outage_seconds

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
        if found["metadata"].get("annotations", {}).get(names.FINGERPRINT) != fingerprint:
            raise PipelineStop(
                f"The cluster's TrainingRuntime '{name}' was made with other settings than this "
                f"package. {self._apply}"
            )

    def create(self, manifest: Document) -> None:
        """Creates a TrainJob.

        Raises:
          PipelineStop: the cluster refuses it.
        """
        create = self._objects.create_namespaced_custom_object
        with contextlib.suppress(AlreadyThere):  # made by a request whose answer was lost
            self._ask(create, *self._all("trainjobs"), manifest)

    def find(self, name: str) -> Document | None:
        """A TrainJob as it is now, or None."""
        get = self._objects.get_namespaced_custom_object
        try:
            found: Document = self._ask(get, *self._all("trainjobs"), name)
        except NotThere:
            return None
        return found

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
        """The workers' pods of a TrainJob."""
        label = f"{names.JOB_LABEL}={name}"
        found = self._ask(self._core.list_namespaced_pod, self.namespace, label_selector=label)
        return pods.read(found.items)

    def log(self, pod: str, follow: bool, **which: int) -> Iterator[tuple[str, str]]:
        """The lines of a worker's log, each after its time: a text that sorts.

        Args:
          pod: its name.
          follow: whether to wait for lines until the container ends.
          which: `since_seconds` or `tail_lines`, for some lines only.

        Raises:
          PipelineStop: the step may not read it.
          LogInterrupted: later it may work.
        """
        try:
            answer = self._core.read_namespaced_pod_log(
                *(pod, self.namespace),
                container=names.NODE,
                timestamps=True,
                follow=follow,
                _preload_content=False,
                _request_timeout=_LINE_SECONDS,
                **which,
            )
            for line in _lines(answer):
                time_, _, text = line.partition(" ")
                yield time_, text
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            if is_forbidden(error):
                raise refusal(error, self._apply) from error
            raise LogInterrupted from error

    def _all(self, plural: str) -> tuple[str, str, str, str]:
        return names.GROUP, names.VERSION, self.namespace, plural

    def _ask(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Asks, again and again while the API does not answer."""
        deadline, wait = time.monotonic() + self._outage_seconds, 0.2
        while True:
            try:
                return call(*arguments, **named, _request_timeout=_ANSWER_SECONDS)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                if not is_passing(error):
                    raise refusal(error, self._apply) from error
                if time.monotonic() > deadline:
                    how_long = f"{self._outage_seconds:.0f} s"
                    text = f"The cluster's API did not answer for {how_long}: {error}"
                    raise PipelineStop(text) from error
            time.sleep(wait)
            wait = min(wait * 1.5, 5.0)


def _connect(configuration: kubernetes.client.Configuration) -> str:
    """Fills in the configuration; returns the namespace."""
    if file := os.environ.get("KUBECONFIG"):
        kubernetes.config.load_kube_config(file, client_configuration=configuration)
        _, active = kubernetes.config.list_kube_config_contexts(file)
        return str(active["context"].get("namespace", "default"))
    kubernetes.config.load_incluster_config(client_configuration=configuration)
    return _NAMESPACE.read_text().strip()


def _lines(answer: Any) -> Iterator[str]:
    """The lines of an answer that still comes; the last one may lack its end."""
    rest = b""
    for piece in answer.stream(amt=1 << 16):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
