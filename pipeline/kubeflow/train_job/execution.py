"""The Trainer's step with several workers: a TrainJob is made, waited for, and tidied away.

KFP downloads inputs to the disk of the step's own pod, and uploads from there. In between, both lie
in a folder of the workspace, where the workers see them too, as an ordinary step's input.
"""

import contextlib
import copy
import ctypes
import itertools
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from components.errors import PipelineStop
from components.files import new_folder
from pipeline.kubeflow import step
from pipeline.kubeflow.train_job import job
from pipeline.kubeflow.train_job.cluster import Cluster, Pod

STEP, INPUT, OUTPUT, HEARTBEAT = "step.json", "input.json", "output.json", "heartbeat"
_FAREWELL_SECONDS = 20.0
"""How long the API is asked to delete a TrainJob when it does not answer."""
_OVERLAP_SECONDS = 60
"""Of a log, asked for twice, as clocks differ; what was shown is known by its time."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
_UNUSABLE = (1, 2)
"""Exit codes of a worker when a person has something to put right."""
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PROGRESS = logging.getLogger("progress")
Document = dict[str, Any]


def execute(told: Document, executor_input: Document, stores: step.Stores) -> None:
    """Runs the step's workers, and hands over what they made.

    Args:
      told: what the compiler wrote; `train_job` is `job.described`.
      executor_input: KFP's ExecutorInput as JSON.
      stores: where artifacts are.

    Raises:
      PipelineStop: what a person has to put right.
      KeyboardInterrupt: a signal came, or the launcher is gone; the TrainJob is deleted.
    """
    settings = told["train_job"]
    name = job.name_of(told["component"], executor_input["outputs"]["outputFile"])
    folder = Path(settings["folder"]) / name
    beat = _heart(folder / HEARTBEAT, settings["silence_seconds"])
    runtime = settings["spec"]["runtimeRef"]["name"]
    with _interruptible():
        cluster = Cluster(settings["manifests"], beat)
        cluster.check_runtime(runtime, settings["fingerprint"])
        cluster.delete_and_wait(name)
        ordinary = {key: value for key, value in told.items() if key != "train_job"}
        try:
            _stage(folder, ordinary, executor_input, stores)
            cluster.create(job.manifest(settings, name, str(folder)))
            nodes = settings["spec"]["trainer"]["numNodes"]
            _PROGRESS.info("TrainJob %s: %d workers", name, nodes)
            _wait(cluster, name, nodes, settings["start_seconds"])
            _fetch(folder, executor_input, stores)
        finally:
            _take_leave(settings["manifests"], name, folder)


def _take_leave(manifests: str, name: str, folder: Path) -> None:
    try:
        Cluster(manifests, lambda: None, _FAREWELL_SECONDS).delete(name)
    except PipelineStop as error:
        _PROGRESS.warning("TrainJob %s could not be deleted: %s", name, error)
    shutil.rmtree(folder, ignore_errors=True)


def _heart(file: Path, silence_seconds: float) -> Callable[[], None]:
    """Writes a file, changed, at each beat: workers that see no change of it for long end.

    Kubernetes deletes a TrainJob with the pod that owns it. But a pod whose container was ended
    stays until someone removes it, and its workers would train on. Clocks of machines differ, so
    only changes count.
    """
    number, last = itertools.count(), 0.0

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > silence_seconds / 20 and file.parent.is_dir():
            with contextlib.suppress(OSError):  # the next one may succeed
                file.write_text(str(next(number)))
                last = time.monotonic()

    return beat


def _stage(folder: Path, told: Document, executor_input: Document, stores: step.Stores) -> None:
    """Makes the workers' folder, whole or not at all, in place of what a lost attempt left."""
    _PROGRESS.info("copying the inputs to %s", folder)
    staged = copy.deepcopy(executor_input)
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
            Path(temporary, "outputs").mkdir()
            staged["outputs"]["outputFile"] = str(folder / OUTPUT)
            Path(temporary, STEP).write_text(json.dumps(told))
            Path(temporary, INPUT).write_text(json.dumps(staged))
            Path(temporary, HEARTBEAT).write_text("")
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


def _wait(cluster: Cluster, name: str, nodes: int, start_seconds: float) -> None:
    """Returns when all workers have ended well. Meanwhile the chief's log is shown.

    Raises:
      PipelineStop: the training failed, the workers don't start, or the TrainJob is gone.
    """
    relay, wait = _Relay(cluster), _FIRST_WAIT
    since, troubles = time.monotonic(), set[str]()
    while True:
        found, pods = cluster.find(name), cluster.pods(name)
        if found is None:
            raise PipelineStop(f"The TrainJob {name} was deleted while it was waited for.")
        if pods and pods[0].worker == 0 and pods[0].has_started:
            relay.show(pods[0].name)
        conditions = {
            one["type"]: one
            for one in found.get("status", {}).get("conditions", [])
            if one["status"] == "True"
        }
        if "Complete" in conditions:
            return
        if "Failed" in conditions:
            raise PipelineStop(_reason(cluster, name, conditions["Failed"], pods, relay.last_line))
        if "Suspended" in conditions or (
            len(pods) == nodes and all(pod.has_started for pod in pods)
        ):  # a queue (Kueue) does so: that takes no time here
            since = time.monotonic()
        for pod in pods:
            if pod.trouble and (kind := pod.trouble.partition(":")[0]) not in troubles:
                troubles.add(kind)
                _PROGRESS.warning("TrainJob %s waits: %s: %s", name, pod.name, pod.trouble)
        if time.monotonic() - since > start_seconds:
            raise PipelineStop(_not_started(name, nodes, start_seconds, pods))
        time.sleep(wait)
        wait = min(wait * 1.3, _LONGEST_WAIT)


class _Relay:
    """Shows the chief's log as this step's own, line by line, through all starts of the group."""

    def __init__(self, cluster: Cluster):
        self._cluster, self._pod, self._shown, self._heard = cluster, "", "", 0.0
        self.last_line = ""

    def show(self, pod: str) -> None:
        """Shows the lines that are new."""
        if pod != self._pod:
            self._pod, self._shown = pod, ""
        ago = int(time.monotonic() - self._heard) + _OVERLAP_SECONDS
        for line in self._cluster.log(pod, **({"since_seconds": ago} if self._shown else {})):
            stamp, _, text = line.partition(" ")
            if stamp > self._shown:
                self._shown, self._heard = stamp, time.monotonic()
                self.last_line = text.strip() or self.last_line
                print(text, flush=True)


def _not_started(name: str, nodes: int, seconds: float, pods: list[Pod]) -> str:
    told = [
        f"{pod.name}: {pod.trouble or f'see kubectl describe pod {pod.name}'}"
        for pod in pods
        if not pod.has_started
    ]
    if len(pods) < nodes:
        lack = f"{len(pods)} of {nodes} pods were made"
        told.append(f"{lack}, see kubectl describe trainjob,jobset {name}")
    return (
        f"The workers of TrainJob {name} did not all start within {seconds:g} s: "
        f"{'; '.join(told)}. (Their time is train_job.start_seconds.)"
    )


def _reason(cluster: Cluster, name: str, failed: Document, pods: list[Pod], last_line: str) -> str:
    """Why it failed: the last words of the worker that had something to say, or of the chief."""
    speaker = next((pod for pod in pods if pod.exit_code in _UNUSABLE), None)
    worker = speaker.worker if speaker else 0
    if speaker and worker:
        last_line = "".join(cluster.log(speaker.name, tail_lines=1)).partition(" ")[2]
    words = last_line.removeprefix("Trainer failed: ") or "its log says nothing"
    how = f"{failed['reason']}: {failed['message']}"
    return f"{words} (worker {worker} of TrainJob {name}; {how})"


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, SIGINT and the end of the parent process raise KeyboardInterrupt, once.

    KFP's launcher passes no signal on. So the kernel sends SIGTERM when it ends. (Strictly: when
    the thread ends that started this process; Go keeps its threads.)
    """
    parent = os.getppid()
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        if os.getppid() != parent:  # it ended before the kernel knew
            raise KeyboardInterrupt
        yield
    finally:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # what has to be tidied up is tidied up
    raise KeyboardInterrupt(
        f"ended by {signal.Signals(number).name}; the next attempt goes on from the last checkpoint"
    )
