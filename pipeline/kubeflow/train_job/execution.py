"""The Trainer's step with several workers: it makes a TrainJob of Kubeflow Trainer v2 and waits.

In each of the pods `worker` makes TF_CONFIG and takes part in the training. Not run on a cluster.

KFP downloads inputs to the disk of the step's own pod, and uploads from there. In between, both lie
in a folder of the workspace, where the workers see them too. The workers' logs are there as well,
and a file that changes as long as the step asks for its TrainJob: workers that see no change of it
for long end. Kubernetes deletes a TrainJob with the pod that owns it, but a pod whose container was
ended stays until someone removes it, and its workers would train on.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import kubernetes
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from components.errors import PipelineStop
from components.files import new_folder, write_atomically
from pipeline.kubeflow import step
from pipeline.kubeflow.client import BUSY, NoAnswer, patiently, words_of
from pipeline.kubeflow.train_job import job

STEP, INPUT, OUTPUT, HEARTBEAT = "step.json", "input.json", "output.json", "heartbeat"
LOG = "log"
"""Of worker 0, the chief, it is `log.0`."""
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_ANSWER_SECONDS = (5.0, 30.0)
"""To connect, and to be answered."""
_OUTAGE_SECONDS = 600.0
_VANISH_SECONDS = 300.0
_POLL_SECONDS = 2.0
_OF_JOB = "jobset.sigs.k8s.io/jobset-name"
_FAILED = re.compile(r"^Trainer failed: (.*)", re.MULTILINE)
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
    cluster = Cluster(name, folder, settings["manifests"])
    cluster.delete(_VANISH_SECONDS)  # what an earlier attempt left
    try:
        stage(folder, told, executor_input, stores)
        cluster.create(job.manifest(settings, name, str(folder)))
        _wait(cluster, settings)
        hand_over(folder, executor_input, stores)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what has to be tidied up is tidied up
        try:
            cluster.delete()
        except PipelineStop as error:
            _PROGRESS.warning("TrainJob %s could not be deleted: %s", name, error)
        shutil.rmtree(folder, ignore_errors=True)


def stage(folder: Path, told: Document, executor_input: Document, stores: step.Stores) -> None:
    """Makes the workers' folder, whole or not at all, in place of what a lost attempt left.

    For them it holds the stores' folders.
    """
    _PROGRESS.info("copying the inputs to %s", folder)
    outputs = executor_input["outputs"] | {"outputFile": str(folder / OUTPUT)}
    try:
        with new_folder(str(folder)) as temporary:
            for uri in _uris(executor_input["inputs"]):
                if os.path.exists(source := stores.local(uri)):
                    shutil.copytree(source, step.Stores(f"{temporary}/").local(uri))
            Path(temporary, STEP).write_text(json.dumps(told))
            Path(temporary, INPUT).write_text(json.dumps(executor_input | {"outputs": outputs}))
    except OSError as error:
        raise PipelineStop(
            f"The inputs for the workers cannot be copied to the workspace: {error}. The claim has "
            "to have room, and to be writable for the user that the step runs as."
        ) from error


def hand_over(folder: Path, executor_input: Document, stores: step.Stores) -> None:
    """Puts what the workers made where KFP's launcher looks for it."""
    for uri in _uris(executor_input["outputs"]):
        if os.path.exists(made := step.Stores(f"{folder}/").local(uri)):
            shutil.copytree(made, stores.local(uri), dirs_exist_ok=True)
    output = stores.local(executor_input["outputs"]["outputFile"])
    write_atomically(output, (folder / OUTPUT).read_text())


def _uris(given: Document) -> list[str]:
    """Where the artifacts of inputs or outputs are, each once."""
    found = given.get("artifacts", {}).values()
    return sorted({each["uri"] for one in found for each in one["artifacts"]})


def _wait(cluster: "Cluster", settings: Document) -> None:
    """Returns when all workers have ended well. Meanwhile the chief's log is shown.

    Raises:
      PipelineStop: the training failed, the workers don't start, or the TrainJob is gone.
    """
    name, limit = cluster.name, settings["start_seconds"]
    nodes, since, shown = settings["spec"]["trainer"]["numNodes"], time.monotonic(), 0
    _PROGRESS.info("TrainJob %s: %d workers", name, nodes)
    while True:
        if (found := cluster.find()) is None:
            raise PipelineStop(f"The TrainJob {name} was deleted while it was waited for.")
        listed = found.get("status", {}).get("conditions", [])
        conditions = {one["type"]: one for one in listed if one["status"] == "True"}
        files = sorted(cluster.folder.glob(f"{LOG}.*"))
        logs = {file.name: file.read_text(errors="replace") for file in files}
        chief = logs.get(f"{LOG}.0", "")
        print(chief[shown:], end="", flush=True)
        shown = len(chief)
        if "Complete" in conditions:
            return
        if failed := conditions.get("Failed"):
            unknown = "The workers don't say why" if logs else "No worker wrote to the workspace"
            reasons = _FAILED.findall("\n".join(logs.values())) or [unknown]
            how = f"{failed['reason']}: {failed['message']}"
            raise PipelineStop(f"{reasons[-1]} (TrainJob {name}; {how})")
        if "Suspended" in conditions or len(logs) == nodes:  # a queue's time is not counted
            since = time.monotonic()
        if time.monotonic() - since > limit:
            raise PipelineStop(
                f"{nodes - len(logs)} of the {nodes} workers of TrainJob {name} did not start "
                f"within {limit} s (train_job.start_seconds). Why, says: "
                f"kubectl describe pods -l {_OF_JOB}={name}; if there are none: kubectl describe "
                f"trainjob,jobset {name}"
            )
        time.sleep(_POLL_SECONDS)


class Cluster:
    """The namespace that the step runs in, and its TrainJob there."""

    def __init__(self, name: str, folder: Path, manifests: str):
        """Reads how the API is reached: from KUBECONFIG if that is set, else as a pod does.

        Args:
          name: the TrainJob's.
          folder: the workers'; each request leaves a sign there that this step lives.
          manifests: the name of the file with what a namespace has to have.
        """
        self.name, self.folder, self._manifests = name, folder, manifests
        configuration = kubernetes.client.Configuration()
        try:
            if file := os.environ.get("KUBECONFIG"):
                kubernetes.config.load_kube_config(file, client_configuration=configuration)
                _, active = kubernetes.config.list_kube_config_contexts(file)
                self._namespace = active["context"].get("namespace", "default")
            else:
                kubernetes.config.load_incluster_config(client_configuration=configuration)
                self._namespace = _NAMESPACE.read_text().strip()
        except (kubernetes.config.ConfigException, OSError) as error:
            raise PipelineStop(
                "With training.strategy=multi_worker the Trainer's step makes a TrainJob: it runs "
                f"in a cluster only, or with KUBECONFIG ({error})."
            ) from error
        api = kubernetes.client.ApiClient(configuration)
        self._objects = kubernetes.client.CustomObjectsApi(api)

    def create(self, manifest: Document) -> None:
        """Creates the TrainJob, unless a request whose answer was lost did so."""
        self._ask("create", manifest)

    def find(self) -> Any:
        """The TrainJob, or None."""
        return self._ask("get", self.name)

    def delete(self, vanish_seconds: float = 0.0) -> None:
        """Deletes the TrainJob if it is there, and waits until its pods have ended."""
        self._ask("delete", self.name, propagation_policy="Foreground")
        deadline = time.monotonic() + vanish_seconds
        while vanish_seconds and self.find():
            if time.monotonic() > deadline:
                raise PipelineStop(
                    f"The TrainJob {self.name} of an earlier attempt was deleted, and does not "
                    f"vanish. See: kubectl describe trainjob {self.name}"
                )
            time.sleep(_POLL_SECONDS)

    def _ask(self, verb: str, what: Any, **named: Any) -> Any:
        """The answer; None if there is no object of this name, or it is there already."""
        request = getattr(self._objects, f"{verb}_namespaced_custom_object")
        where = job.GROUP, job.VERSION, self._namespace, "trainjobs"

        def once() -> Any:
            with contextlib.suppress(OSError):  # the next one may succeed
                (self.folder / HEARTBEAT).write_text(str(time.monotonic()))
            try:
                return request(*where, what, **named, _request_timeout=_ANSWER_SECONDS)
            except HTTPError as error:
                raise NoAnswer(f"The cluster's API does not answer: {error}.") from error
            except ApiException as error:
                has_trainer = "page not found" not in str(error.body)
                if error.status in (404, 409) and has_trainer:
                    return None
                raise self._refused(error, has_trainer) from error

        return patiently(_OUTAGE_SECONDS, once)

    def _refused(self, error: ApiException, has_trainer: bool) -> PipelineStop:
        if not has_trainer:
            return PipelineStop(
                "The cluster has no Kubeflow Trainer v2, which runs the workers of a Trainer step "
                "(training.strategy=multi_worker). Have it installed: https://trainer.kubeflow.org"
                "/en/latest/operator-guides/installation.html, or set training.strategy=auto."
            )
        words = f"The cluster refuses the Trainer's workers: {words_of(error)}."
        if error.status in BUSY:
            return NoAnswer(words)
        if error.status in (401, 403):
            apply = f"-n {self._namespace} -f build/{self._manifests}"
            words += f" Run: kubectl apply {apply} (make compile writes it)"
        return PipelineStop(words)
