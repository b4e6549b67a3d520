"""What TFX's Trainer calls to train in several processes (MultiWorkerMirroredStrategy).

Without TF_CONFIG they are processes of this machine, and are started again, all together, when one
of them dies. With TF_CONFIG this process is the chief of a cluster (see `member`).
"""

import json
import os
import socket
from contextlib import ExitStack
from typing import Any

import tensorflow as tf

from components.multi_worker import member
from components.trainer.core.checkpoints import PROGRESS
from components.trainer.core.interruption import Interrupted, noted
from components.trainer.core.job import Job, Trained, trained
from components.trainer.core.loop import TrainingError
from components.trainer.core.strategy import check, cluster
from components.trainer.processes import Died, Worker, run_group
from components.trainer.run import train_and_export

_THREADS, _GPUS = "TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES"


def run_fn(fn_args: Any) -> None:
    """Trains in worker processes, and exports here.

    Args:
      fn_args: see `components.trainer.run.train_and_export`.

    Raises:
      PipelineStop: what a person has to put right.
      KeyboardInterrupt: SIGTERM or SIGINT came, or a worker elsewhere is gone; start again.
    """
    train_and_export(fn_args, train_group)


def train_group(job: Job) -> Trained:
    """Trains in several processes.

    Raises:
      Interrupted: a checkpoint is kept; start again.
      TrainingError, StrategyError, CheckpointError: what a person has to put right.
    """
    check(job.settings["training"])
    with noted() as signals:
        train = member.train_as_chief if cluster() else _train_here
        replicas = train(job, signals)
        if signals:
            raise Interrupted("interrupted after the last step; checkpoint written")
    return trained(job, replicas)


def _train_here(job: Job, signals: list[int]) -> int:
    """Trains in workers on this machine; returns the number of replicas."""
    options, restarts = job.settings["training"], 0
    while True:
        try:
            places = zip(shares(options["workers"]), loopback(options["workers"]), strict=True)
            workers = [
                Worker(n, job, os.environ | share | {"TF_CONFIG": place}, speaks=n == 0)
                for n, (share, place) in enumerate(places)
            ]
            return run_group(workers, signals, options["hang_seconds"])
        except Died as death:
            restarts += 1
            if restarts > options["restarts"]:
                raise TrainingError(
                    f"The training was given up after {options['restarts']} restarts: {death}. The "
                    "log has what it said. The same command goes on from the last checkpoint."
                ) from death
            PROGRESS.warning(
                "%s; starting the group again, %d of %d restarts, from its last checkpoint",
                *(death, restarts, options["restarts"]),
            )


def shares(workers: int) -> list[dict[str, str]]:
    """Environment variables that give each of several workers its part of this machine.

    The cores are divided. Of several GPUs each has one; that was not verified on hardware.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    share = {_THREADS: os.environ.get(_THREADS, str(threads))}
    count = len(tf.config.list_physical_devices("GPU"))
    if count < 2:
        return [share] * workers
    gpus = os.environ.get(_GPUS, "").split(",")[:count]
    if len(gpus) < count:
        gpus = [str(number) for number in range(count)]
    return [share | {_GPUS: gpus[number % count]} for number in range(workers)]


def loopback(workers: int) -> list[str]:
    """TF_CONFIG for each of several workers on this machine, on free ports."""
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(workers)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in opened]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}})
        for number in range(workers)
    ]
