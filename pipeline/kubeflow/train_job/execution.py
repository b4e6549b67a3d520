"""The Trainer's step with several workers: a TrainJob is made, waited for, and tidied away.

KFP downloads inputs to the disk of the step's own pod, and uploads from there. In between, both lie
in a folder of the workspace, where the workers see them too, as an ordinary step's input.
"""

import contextlib
import copy
import itertools
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
from kubernetes.client import ApiException

from components.errors import PipelineStop
from components.files import new_folder
from pipeline.kubeflow import step
from pipeline.kubeflow.train_job import job

STEP, INPUT, OUTPUT, HEARTBEAT = "step.json", "input.json", "output.json", "heartbeat"
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_ANSWER_SECONDS = (5.0, 30.0)
"""To connect, and to be answered."""
_OUTAGE, _FAREWELL = 120, 4
"""How often an API that does not answer is asked again, five seconds apart; and at the end."""
_VANISH_SECONDS = 300.0
_OVERLAP_SECONDS = 60
"""Of a log, asked for twice, as clocks differ; what was shown is known by its time."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
_INDEX = "batch.kubernetes.io/job-completion-index"
_UNUSABLE = (1, 2)
"""Exit codes of a worker when a person has something to put right."""
_PROGRESS = logging.getLogger("progress")
Document = dict[str, Any]


def execute(told: Document, executor_input: Document, stores: step.Stores) -> None:
    """Runs the step's workers, and hands over what they made; `told["train_job"]` is described.

    Raises:
      PipelineStop: what a person has to put right.
      KeyboardInterrupt: a signal came; the TrainJob is deleted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = told.pop("train_job")
    name = job.name_of(told["component"], executor_input["outputs"]["outputFile"])
    folder = Path(settings["folder"]) / name
    cluster = Cluster(name, settings)
    cluster.check_runtime(settings["spec"]["runtimeRef"]["name"], settings["fingerprint"])
    cluster.delete_and_wait()
    try:
        _stage(folder, told, executor_input, stores)
        with _heart(folder / HEARTBEAT, settings["silence_seconds"]):
            cluster.create(job.manifest(settings, name, str(folder)))
            _wait(cluster, settings["spec"]["trainer"]["numNodes"], settings["start_seconds"])
        _fetch(folder, executor_input, stores)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what has to be tidied up is tidied up
        try:
            Cluster(name, settings, _FAREWELL).delete()
        except PipelineStop as error:
            _PROGRESS.warning("TrainJob %s could not be deleted: %s", name, error)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _heart(file: Path, silence_seconds: float) -> Iterator[None]:
    """Changes a file again and again: workers that see no change of it for long end.

    Kubernetes deletes a TrainJob with the pod that owns it. But a pod whose container was ended
    stays until someone removes it, and its workers would train on.
    """
    stopped = threading.Event()

    def beat() -> None:
        for number in itertools.count():
            with contextlib.suppress(OSError):  # the next one may succeed
                file.write_text(str(number))
            if stopped.wait(silence_seconds / 20):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _stage(folder: Path, told: Document, executor_input: Document, stores: step.Stores) -> None:
    """Makes the workers' folder, whole or not at all, in place of what a lost attempt left."""
    _PROGRESS.info("copying the inputs to %s", folder)
    staged = copy.deepcopy(executor_input)
    staged["outputs"]["outputFile"] = str(folder / OUTPUT)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(str(folder)) as temporary:
            for place, artifact in _artifacts(staged["inputs"]):
                source = Path(stores.local(artifact["uri"]))
                if source.exists():
                    shutil.copytree(source, Path(temporary, "inputs", place))
                artifact["uri"] = str(folder / "inputs" / place)
            for place, artifact in _artifacts(staged["outputs"]):
                artifact["uri"] = str(folder / "outputs" / place)
            Path(temporary, STEP).write_text(json.dumps(told))
            Path(temporary, INPUT).write_text(json.dumps(staged))
    except OSError as error:
        raise PipelineStop(
            f"The inputs for the workers cannot be copied to the workspace: {error}. The claim has "
            "to have room, and to be writable for the user that the step runs as."
        ) from error


def _fetch(folder: Path, executor_input: Document, stores: step.Stores) -> None:
    """Puts what the workers made where KFP's launcher looks for it, with its real URIs."""
    output = json.loads((folder / OUTPUT).read_text())
    made = dict(_artifacts(output))
    for place, real in _artifacts(executor_input["outputs"]):
        if place in made:
            shutil.copytree(made[place]["uri"], stores.local(real["uri"]), dirs_exist_ok=True)
            made[place]["uri"] = real["uri"]
    step.write_output(stores.local(executor_input["outputs"]["outputFile"]), output)


def _artifacts(given: Document) -> Iterator[tuple[str, Any]]:
    """The artifacts of inputs or outputs, each with its place: `model/0`."""
    for name, found in given.get("artifacts", {}).items():
        for number, artifact in enumerate(found["artifacts"]):
            yield f"{name}/{number}", artifact


class Cluster:
    """The namespace that the step runs in, and its TrainJob there."""

    def __init__(self, name: str, settings: Document, attempts: int = _OUTAGE):
        """Reads how the API is reached: from KUBECONFIG if that is set, else as a pod does.

        Raises:
          PipelineStop: this is no cluster.
        """
        configuration = kubernetes.client.Configuration()
        configuration.retries = urllib3.Retry(
            total=attempts,
            backoff_factor=0.2,
            backoff_max=5.0,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
        )
        try:
            namespace = _connect(configuration)
        except (kubernetes.config.ConfigException, OSError) as error:
            raise PipelineStop(
                "With training.strategy=multi_worker the Trainer's step makes a TrainJob: it runs "
                f"in a cluster only, or with KUBECONFIG ({error})."
            ) from error
        api = kubernetes.client.ApiClient(configuration)
        self._custom = kubernetes.client.CustomObjectsApi(api)
        self._core = kubernetes.client.CoreV1Api(api)
        self.name, self._namespace = name, namespace
        self._apply = (
            f"Run: kubectl apply -n {namespace} -f build/{settings['manifests']} (make compile "
            "writes it)"
        )
        self._shown, self._heard, self.last_line = "", 0.0, ""

    def check_runtime(self, name: str, fingerprint: str) -> None:
        """Checks that the TrainingRuntime is the one that the package was compiled with."""
        found = self._objects("get", "trainingruntimes", name)
        if found is None:
            raise PipelineStop(f"The cluster has no TrainingRuntime '{name}'. {self._apply}")
        if found["metadata"].get("annotations", {}).get(job.FINGERPRINT) != fingerprint:
            raise PipelineStop(
                f"The cluster's TrainingRuntime '{name}' was made with other settings than this "
                f"package. {self._apply}"
            )

    def create(self, manifest: Document) -> None:
        """Creates the TrainJob, unless a request whose answer was lost did so."""
        self._objects("create", "trainjobs", manifest)

    def find(self) -> Document | None:
        """The TrainJob as it is now, or None."""
        found: Document | None = self._objects("get", "trainjobs", self.name)
        return found

    def delete(self) -> None:
        """Deletes the TrainJob if it is there; it vanishes when its pods have."""
        self._objects("delete", "trainjobs", self.name, propagation_policy="Foreground")

    def delete_and_wait(self) -> None:
        """Deletes the TrainJob of an earlier attempt, and waits until its pods have ended."""
        self.delete()
        deadline = time.monotonic() + _VANISH_SECONDS
        while self.find() is not None:
            if time.monotonic() > deadline:
                raise PipelineStop(
                    f"The TrainJob {self.name} of an earlier attempt was deleted, and does not "
                    f"vanish. See: kubectl describe trainjob {self.name}"
                )
            time.sleep(0.5)

    def pods(self) -> dict[int, Any]:
        """The workers' pods by number: of each the newest, without those being deleted."""
        label = f"jobset.sigs.k8s.io/jobset-name={self.name}"
        listed = self._ask(self._core.list_namespaced_pod, self._namespace, label_selector=label)
        alive = [pod for pod in listed.items if pod.metadata.deletion_timestamp is None]
        alive.sort(key=lambda pod: pod.metadata.creation_timestamp)
        numbers = [int((pod.metadata.annotations or {}).get(_INDEX, -1)) for pod in alive]
        newest = dict(zip(numbers, alive, strict=True))
        return {number: newest[number] for number in sorted(newest) if number >= 0}

    def show_log(self, pod: Any) -> None:
        """Shows the new lines of a worker's log as this step's own, through all its starts."""
        ago = int(time.monotonic() - self._heard) + _OVERLAP_SECONDS
        for line in self.log(pod, **({"since_seconds": ago} if self._shown else {})):
            stamp, _, text = line.partition(" ")
            if stamp > self._shown:
                self._shown, self._heard = stamp, time.monotonic()
                self.last_line = text.strip() or self.last_line
                print(text, flush=True)

    def log(self, pod: Any, **which: int) -> list[str]:
        """Lines of a worker's log, each after its time and a space; none if it can't be read."""
        read, which = self._core.read_namespaced_pod_log, {"timestamps": True, **which}
        try:
            text = self._ask(read, pod.metadata.name, self._namespace, container=job.NODE, **which)
        except PipelineStop:  # the training does not need its log
            return []
        return str(text or "").splitlines()

    def _objects(self, verb: str, plural: str, *values: Any, **named: Any) -> Any:
        request = getattr(self._custom, f"{verb}_namespaced_custom_object")
        where = job.GROUP, job.VERSION, self._namespace, plural
        return self._ask(request, *where, *values, **named)

    def _ask(self, request: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """The answer; None if there is no object of this name, or it is there already."""
        try:
            return request(*values, **named, _request_timeout=_ANSWER_SECONDS)
        except urllib3.exceptions.HTTPError as error:
            raise PipelineStop(f"The cluster's API does not answer: {error}") from error
        except ApiException as error:
            return self._refused(error)

    def _refused(self, error: ApiException) -> None:
        try:
            status = json.loads(error.body)
            text = str(status["message"])
        except (ValueError, TypeError, KeyError):
            status, text = {}, str(error.body or error.reason)
        is_named = status.get("details", {}).get("name")
        if error.status == 409 or (error.status == 404 and is_named):
            return
        if error.status == 404:
            raise PipelineStop(
                "The cluster has no Kubeflow Trainer v2, which runs the workers of a Trainer step "
                "(training.strategy=multi_worker). Have it installed: "
                "https://trainer.kubeflow.org/en/latest/operator-guides/installation.html, "
                f"or set training.strategy=auto. ({text})"
            ) from error
        if error.status in (401, 403) and "admission webhook" not in text:
            text = f"The step's service account may not do this: {text}. {self._apply}"
            raise PipelineStop(text) from error
        raise PipelineStop(f"The cluster refuses the Trainer's workers: {text}") from error


def _connect(configuration: Any) -> str:
    """Fills in the configuration; returns the namespace."""
    if file := os.environ.get("KUBECONFIG"):
        kubernetes.config.load_kube_config(file, client_configuration=configuration)
        _, active = kubernetes.config.list_kube_config_contexts(file)
        return str(active["context"].get("namespace", "default"))
    kubernetes.config.load_incluster_config(client_configuration=configuration)
    return _NAMESPACE.read_text().strip()


def _wait(cluster: Cluster, nodes: int, start_seconds: float) -> None:
    """Returns when all workers have ended well. Meanwhile the chief's log is shown.

    Raises:
      PipelineStop: the training failed, the workers don't start, or the TrainJob is gone.
    """
    _PROGRESS.info("TrainJob %s: %d workers", cluster.name, nodes)
    wait, since, troubles = _FIRST_WAIT, time.monotonic(), dict[str, str]()
    while True:
        found, pods = cluster.find(), cluster.pods()
        if found is None:
            raise PipelineStop(f"The TrainJob {cluster.name} was deleted while it was waited for.")
        if 0 in pods and _has_started(pods[0]):
            cluster.show_log(pods[0])
        listed = found.get("status", {}).get("conditions", [])
        conditions = {one["type"]: one for one in listed if one["status"] == "True"}
        if "Complete" in conditions:
            return
        if "Failed" in conditions:
            raise PipelineStop(_reason(cluster, conditions["Failed"], pods))
        started = [pod for pod in pods.values() if _has_started(pod)]
        if "Suspended" in conditions or len(started) == nodes:  # a queue's time is not counted
            since = time.monotonic()
        waiting = {pod.metadata.name: _trouble(pod) for pod in pods.values() if pod not in started}
        for pod, trouble in waiting.items():
            if trouble and trouble.partition(":")[0] not in troubles:
                troubles[trouble.partition(":")[0]] = pod
                _PROGRESS.warning("TrainJob %s waits: %s: %s", cluster.name, pod, trouble)
        if time.monotonic() - since > start_seconds:
            causes = [f"{pod}: {text or 'see kubectl describe'}" for pod, text in waiting.items()]
            raise PipelineStop(
                f"The workers of TrainJob {cluster.name} did not all start within "
                f"{start_seconds:g} s: {len(pods)} of {nodes} pods were made, see kubectl describe "
                f"trainjob,jobset {cluster.name}; {'; '.join(causes)}. (Their time is "
                "train_job.start_seconds.)"
            )
        time.sleep(wait)
        wait = min(wait * 1.3, _LONGEST_WAIT)


def _state(pod: Any) -> Any:
    """The state of a worker's container."""
    statuses = pod.status.container_statuses or []
    return next((status.state for status in statuses if status.name == job.NODE), None)


def _has_started(pod: Any) -> bool:
    state = _state(pod)
    return bool(state and (state.running or state.terminated))


def _trouble(pod: Any) -> str:
    """Why a pod does not start, if it says so."""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    waiting = (state := _state(pod)) and state.waiting
    if not waiting or waiting.reason in ("ContainerCreating", "PodInitializing"):
        return ""
    return f"{waiting.reason}: {waiting.message or 'no more is said'}"


def _reason(cluster: Cluster, failed: Document, pods: dict[int, Any]) -> str:
    """Why it failed: the last words of the worker that had something to say, or of the chief."""
    worker, words = 0, cluster.last_line
    ended = {n: state.terminated for n, pod in pods.items() if (state := _state(pod))}
    if speakers := [n for n, end in ended.items() if end and end.exit_code in _UNUSABLE]:
        worker = speakers[0]
    if worker:
        words = "".join(cluster.log(pods[worker], tail_lines=1)).partition(" ")[2]
    words = words.removeprefix("Trainer failed: ") or "its log says nothing"
    how = f"{failed['reason']}: {failed['message']}"
    return f"{words} (worker {worker} of TrainJob {cluster.name}; {how})"
