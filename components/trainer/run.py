"""What TFX's Trainer calls: it trains with the core, exports, and records what it did."""

import hashlib
import json
import logging
import os
import time
from importlib import metadata
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

from components.errors import PipelineStop
from components.features.model_inputs import model_inputs
from components.features.table import FeatureTable
from components.trainer.core import data
from components.trainer.core.loop import Progress, Training, TrainingError
from components.trainer.export import export
from components.trainer.hyperparameters import with_winner

PROGRESS = logging.getLogger("progress")
"""Lines for a person who waits; the console and a pod's log show them."""

_LIBRARIES = ("tensorflow", "keras", "tensorflow-transform", "tfx", "numpy")


def run_fn(fn_args: Any) -> None:
    """Trains and exports a model.

    Args:
      fn_args: TFX's FnArgs; `custom_config` holds `table` (the feature table as a dict), `settings`
        (`model` and `training`), `log_dir` and the `code` fingerprint; `hyperparameters` is the
        Tuner's winner, if there is a Tuner, and takes precedence over `settings`.

    Raises:
      PipelineStop: the loss is not a number.
    """
    config = fn_args.custom_config
    table = FeatureTable.model_validate(config["table"])
    transformed = tft.TFTransformOutput(fn_args.transform_graph_path)
    inputs = model_inputs(table, transformed)
    settings = with_winner(config["settings"], fn_args.hyperparameters)
    started = time.monotonic()
    training = Training(
        data.load(fn_args.train_files, inputs),
        data.load(fn_args.eval_files, inputs),
        inputs,
        settings,
    )
    steps, evaluations = _train(training, os.path.join(fn_args.model_run_dir, "tensorboard"))
    seconds = time.monotonic() - started
    export(training.model, transformed, table, fn_args.serving_model_dir)
    record = {
        "fingerprint": _fingerprint(training.model, fn_args.transform_graph_path),
        "hyperparameters": settings,
        "inputs": inputs,
        "code": config["code"],
        "steps": steps,
        "rows": training.rows,
        "seconds": round(seconds, 3),
        "evaluations": evaluations,
        "library_versions": {name: metadata.version(name) for name in _LIBRARIES},
    }
    _write_json(os.path.join(os.path.dirname(fn_args.serving_model_dir), "training.json"), record)


def _train(training: Training, log_dir: str) -> tuple[int, list[dict[str, Any]]]:
    evaluations: list[dict[str, Any]] = []
    with tf.summary.create_file_writer(log_dir).as_default():

        def report(progress: Progress) -> None:
            PROGRESS.info("%s", progress)
            evaluations.append(
                {"step": progress.step, "train_loss": progress.loss} | progress.evaluation
            )
            tf.summary.scalar("loss/train", progress.loss, progress.step)
            tf.summary.scalar("examples_per_second", progress.examples_per_second, progress.step)
            for name, value in progress.evaluation.items():
                tf.summary.scalar(f"{name}/eval", value, progress.step)

        try:
            return training.run(report), evaluations
        except TrainingError as error:
            raise PipelineStop(str(error)) from error


def _fingerprint(model: keras.Model, transform_graph: str) -> str:
    """Identifies the model: its weights, and the vocabularies of its Transform graph."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(f"{variable.shape}{variable.dtype}".encode())
        digest.update(variable.numpy().tobytes())
    assets = os.path.join(transform_graph, "transform_fn", "assets")
    for name in sorted(tf.io.gfile.listdir(assets)) if tf.io.gfile.isdir(assets) else ():
        with tf.io.gfile.GFile(os.path.join(assets, name), "rb") as file:
            digest.update(name.encode() + file.read())
    return digest.hexdigest()


def _write_json(path: str, record: dict[str, Any]) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(record, indent=2, sort_keys=True))
