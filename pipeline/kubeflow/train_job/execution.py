"""The Trainer's step with several workers: a TrainJob is made, waited for, and tidied away.

Not run on a cluster; the tests run it against a stand-in for the cluster's API that starts the
TrainJob's pods as processes of one machine.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from components.errors import PipelineStop
from pipeline.kubeflow.package import Document
from pipeline.kubeflow.train_job import ending, heartbeat, job, names, staging, waiting
from pipeline.kubeflow.train_job.cluster import Cluster

_FAREWELL_SECONDS = 20.0
"""How long the API is asked to delete a TrainJob when it does not answer."""
_PROGRESS = logging.getLogger("progress")


def execute(step: Document, executor_input: Document) -> None:
    """Runs the step's workers, and hands over what they made.

    Args:
      step: what the compiler wrote; `train_job` is `job.described`.
      executor_input: KFP's ExecutorInput as JSON.

    Raises:
      PipelineStop: what a person has to put right.
      KeyboardInterrupt: a signal came, or the launcher is gone; the TrainJob is deleted.
    """
    settings = step["train_job"]
    name = names.job(step["component"], executor_input["outputs"]["outputFile"])
    folder = Path(settings["folder"]) / name
    trainer = settings["spec"]["trainer"]
    with ending.noticed():
        cluster = Cluster(settings["manifests"])
        cluster.check_runtime(settings["spec"]["runtimeRef"]["name"], settings["fingerprint"])
        cluster.delete_and_wait(name)
        with _staged(folder, step, executor_input), _deleted(name, settings["manifests"]):
            with heartbeat.beating(folder / staging.HEARTBEAT, settings["silence_seconds"]):
                cluster.create(job.manifest(settings, name, str(folder)))
                _PROGRESS.info("TrainJob %s: %d workers", name, trainer["numNodes"])
                waiting.wait(cluster, name, trainer["numNodes"], settings["start_seconds"])
            staging.fetch(folder, executor_input)


@contextlib.contextmanager
def _staged(folder: Path, step: Document, executor_input: Document) -> Iterator[None]:
    """The workers' folder, until the block ends."""
    _PROGRESS.info("copying the inputs to %s", folder)
    ordinary = {key: value for key, value in step.items() if key != "train_job"}
    try:
        try:
            staging.stage(folder, ordinary, executor_input)
        except OSError as error:
            raise PipelineStop(
                f"The inputs for the workers cannot be copied to the workspace: {error}. The claim "
                "has to have room, and to be writable for the user that the step runs as."
            ) from error
        yield
    finally:
        staging.remove(folder)


@contextlib.contextmanager
def _deleted(name: str, manifests: str) -> Iterator[None]:
    """The TrainJob is deleted when the block ends, however it does."""
    try:
        yield
    finally:
        try:
            Cluster(manifests, _FAREWELL_SECONDS).delete(name)
        except PipelineStop as error:
            _PROGRESS.warning("TrainJob %s could not be deleted: %s", name, error)
