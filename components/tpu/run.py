"""What TFX's Trainer calls to train on a TPU.

TensorFlow for TPUs and TFX cannot be installed together. So the training runs in a process of
`.venv-tpu`, from the transformed examples and a JSON job, and leaves its last checkpoint; the model
is built from that and exported here.
"""

from dataclasses import replace
from typing import Any

from components.tpu import environment
from components.trainer.core.interruption import noted
from components.trainer.core.job import Job, Trained, trained
from components.trainer.core.loop import TrainingError
from components.trainer.processes import Died, Worker, run_group
from components.trainer.run import train_and_export


def run_fn(fn_args: Any) -> None:
    """Trains on the TPU, and exports here.

    Args:
      fn_args: see `components.trainer.run.train_and_export`.

    Raises:
      PipelineStop: what a person has to put right.
      KeyboardInterrupt: SIGTERM or SIGINT came; a checkpoint is written.
    """
    train_and_export(fn_args, train_on_tpu)


def train_on_tpu(job: Job) -> Trained:
    """Trains in a process of the TPU environment.

    Raises:
      PipelineStop: the environment isn't there.
      Interrupted: a checkpoint is written; start again.
      TrainingError: what a person has to put right.
    """
    python = environment.ready()
    job = with_environment(job)
    try:
        with noted() as signals:
            worker = Worker(0, job, environment.variables(), python=python)
            replicas = run_group([worker], signals)
    except Died as death:
        raise TrainingError(
            f"The process that trains on the TPU is gone: {death}. The log has what it said. "
            "The same command goes on from the last checkpoint, if there is one."
        ) from death
    return trained(job, replicas)


def with_environment(job: Job) -> Job:
    """The job, whose checkpoints are now those of this TPU environment."""
    return replace(job, identity=job.identity | {"tpu environment": environment.fingerprint()})
