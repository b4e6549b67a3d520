"""A training as a job: JSON in, a trained model out, with TensorFlow and Keras alone.

The pipeline calls `train` itself, or has it called elsewhere by `core.worker`: in each of several
processes, and in an environment without TFX. There a job leaves its last checkpoint, from
which `trained` builds the model again.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from components.trainer.core import data
from components.trainer.core.checkpoints import PROGRESS, CheckpointError, Keeper, Store
from components.trainer.core.interruption import Interrupted, noted
from components.trainer.core.loop import Position, Training, TrainingError, build_model
from components.trainer.core.strategy import (
    StrategyError,
    create,
    is_chief,
    sum_over_workers,
    worker_number,
)
from components.trainer.core.warm_start import warm_start

FAILURES = (data.RowsError, TrainingError, StrategyError, CheckpointError)
"""What a person has to put right; the message is for that person."""


@dataclass
class Job:
    """What to train, and where its checkpoints are."""

    pipeline: str
    """Whose training it is."""
    train_files: list[str]
    """Globs of gzipped TFRecord files of transformed examples."""
    eval_files: list[str]
    inputs: dict[str, Any]
    """The feature spec (`components.features.model_inputs`)."""
    settings: dict[str, Any]
    """`model` and `training` as in `configs/*.yaml`."""
    checkpoints: str
    """The folder for the checkpoints of all trainings; shared, if there are several workers."""
    identity: dict[str, Any]
    """All that the training depends on, but for the number of replicas."""
    log_dir: str
    """For TensorBoard."""
    weights: dict[str, Any] | None = None
    """The version to start from (see `warm_start`)."""
    rows: dict[str, list[data.Rows] | None] = field(default_factory=dict)
    """By split, as far as this process has read them already."""

    def described(self) -> dict[str, Any]:
        """The job as JSON, for another process; it reads the rows itself."""
        self.rows.clear()
        return vars(self)

    def store(self, replicas: int) -> Store:
        """The job's checkpoints."""
        keep = self.settings["training"]["checkpoints"]["keep"]
        identity = self.identity | {"replicas": replicas}
        return Store(self.checkpoints, self.pipeline, identity, keep)


@dataclass
class Trained:
    """A trained model, and what is known of its training."""

    model: keras.Model
    progress: dict[str, Any]
    """As in the last checkpoint."""
    store: Store
    """To be removed once the model is exported."""


def train(job: Job, hand_over: bool = False) -> Trained:
    """Trains, from the newest good checkpoint if there is one; all workers of a group call it.

    Args:
      job: what to train.
      hand_over: leave a checkpoint of the end, for another process to export.

    Raises:
      Interrupted: SIGTERM or SIGINT came, and a checkpoint is written.
      KeyboardInterrupt: it came while rows were read.
      RowsError, TrainingError, StrategyError, CheckpointError: what a person has to put right.
    """
    options = job.settings["training"]
    strategy = create(options)
    store = job.store(strategy.num_replicas_in_sync)
    if is_chief():
        store.open()
    # That may take minutes, and there is nothing to save yet: a signal ends it at once.
    train_rows, eval_rows = _rows(job, store.folder)
    with noted() as signals:
        training = Training(train_rows, eval_rows, job.inputs, job.settings, strategy)
        keeper = _resumed(job, store, training)
        _run(job, training, keeper, signals, hand_over)
    return Trained(training.model, keeper.progress(training), store)


def trained(job: Job, replicas: int) -> Trained:
    """The model of a job that other processes have finished, from its last checkpoint.

    Raises:
      TrainingError: there is no checkpoint of a finished training.
    """
    store = job.store(replicas)
    model = build_model(job.inputs, job.settings)
    progress = store.restore({"model": [variable.value for variable in model.variables]})
    if progress is None or not progress["position"]["finished"]:
        raise TrainingError(f"The training left no finished checkpoint in {store.folder}.")
    return Trained(model, progress, store)


def _rows(job: Job, folder: str) -> tuple[data.Source, data.Source]:
    """The train and the eval split."""
    options = job.settings["training"]
    memory, keep = options["memory_mib"], (options["rebalance"] or {}).get("keep")
    scratch = os.path.join(folder, f"rows-{worker_number()}")
    try:
        train_rows, eval_rows = (
            data.load(
                files,
                job.inputs,
                memory,
                os.path.join(scratch, name),
                share,
                job.rows.pop(name, None),
            )
            for name, files, share in (
                ("train", job.train_files, keep),
                ("eval", job.eval_files, None),
            )
        )
        return train_rows, eval_rows
    except OSError as error:
        raise CheckpointError(
            f"Rows that do not fit into {memory:g} MiB could not be written to {scratch}: "
            f"{error.strerror}. Free space there, or raise training.memory_mib."
        ) from error


def _resumed(job: Job, store: Store, training: Training) -> Keeper:
    """Puts the training where its newest good checkpoint was."""
    progress = store.restore(training.variables, training.feed.source.order)
    if progress:
        training.position = Position(**progress["position"])
        step = training.position.step
        PROGRESS.warning("goes on at step %s of %s", f"{step:,}", f"{training.steps:,}")
    else:
        if reason := store.why_fresh():
            PROGRESS.warning(reason)
        if job.weights:
            warm_start(training, job.weights)
    _check_agreement(training)
    return Keeper(store, job.settings["training"]["checkpoints"], is_chief(), progress)


def _check_agreement(training: Training) -> None:
    """All workers must stand at the same step, with the rows in the same order.

    They would wait for each other for ever, or learn from some rows twice.
    """
    step, order = training.position.step, training.feed.source.order
    digest = hashlib.sha256(f"{step} {order}".encode()).hexdigest()
    number = float(int(digest[:10], 16))  # a sum of thousands is still exact
    total, workers = sum_over_workers(training.strategy, [number, 1.0])
    if total != number * workers:
        raise CheckpointError(
            f"The workers found different checkpoints, or rows in another order (this one: step "
            f"{step:,}). They need one folder for checkpoints that all of them see. Where they "
            "have one, remove the training's folder there, and start again."
        )


def _run(job: Job, training: Training, keeper: Keeper, signals: list[int], hand_over: bool) -> None:
    def pause(training: Training) -> None:
        PROGRESS.debug("at step %d", training.position.step)
        is_last = training.position.finished and hand_over
        due = is_chief() and keeper.is_due(training.position.step)
        wishes = [float(due), float(bool(signals))]
        due_anywhere, signalled = sum_over_workers(training.strategy, wishes)
        if is_last or signalled or due_anywhere:
            keeper.save(training)
        if signalled:
            raise Interrupted(f"interrupted at step {training.position.step:,}; checkpoint written")

    with _curves(job.log_dir) as write:
        for evaluation in training.position.evaluations:  # so that there is one run of curves
            write(evaluation)

        def report(line: str) -> None:
            PROGRESS.info("%s", line)
            write(training.position.evaluations[-1])

        training.run(report, pause)


@contextlib.contextmanager
def _curves(log_dir: str) -> Iterator[Callable[[dict[str, float]], None]]:
    """Writes TensorBoard's curves; in a group of processes the chief does."""
    chief = is_chief()
    writer = tf.summary.create_file_writer(log_dir) if chief else tf.summary.create_noop_writer()

    def write(evaluation: dict[str, float]) -> None:
        values = dict(evaluation)
        step = int(values.pop("step"))
        with writer.as_default():
            tf.summary.scalar("loss/train", values.pop("train_loss"), step)
            tf.summary.scalar("examples_per_second", values.pop("examples_per_second"), step)
            for name, value in values.items():
                tf.summary.scalar(f"{name}/eval", value, step)

    try:
        yield write
    finally:
        writer.close()
