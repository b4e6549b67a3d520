"""What TFX's Trainer calls: it trains with the core, exports, and records what it did."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

from components.errors import PipelineStop
from components.features.model_inputs import model_inputs
from components.features.table import FeatureTable
from components.registry import store
from components.settings import overlay
from components.trainer.core import data
from components.trainer.core.interruption import Interrupted
from components.trainer.core.job import FAILURES, Job, Trained, train
from components.trainer.export import export
from components.trainer.first_phase import add_first_phase

_LIBRARIES = ("tensorflow", "keras", "tensorflow-transform", "tfx", "numpy")

_NOT_IN_IDENTITY = ("strategy", "workers", "restarts", "hang_seconds", "tpu", "checkpoints")
"""Settings of `training` that do not change what is learned. (The number of replicas counts.)"""


def run_fn(fn_args: Any) -> None:
    """Trains in this process, and exports.

    Args:
      fn_args: see `train_and_export`.

    Raises:
      PipelineStop: what a person has to put right.
    """
    train_and_export(fn_args, train)


def train_and_export(fn_args: Any, train_job: Callable[[Job], Trained]) -> None:
    """Trains and exports a model.

    Args:
      fn_args: TFX's FnArgs; `custom_config` holds `table` (the feature table as a dict), `settings`
        (`model` and `training`), `pipeline` (its name), `checkpoints` (the folder), `warm_start`
        (`folder` in the registry and `version`, or None) and the `code` fingerprint.
      train_job: trains, here or elsewhere.

    Raises:
      PipelineStop: what a person has to put right.
      KeyboardInterrupt: SIGTERM or SIGINT came; a checkpoint is written.
    """
    config = fn_args.custom_config
    table = FeatureTable.model_validate(config["table"])
    transformed = tft.TFTransformOutput(fn_args.transform_graph_path)
    job = _job(fn_args, model_inputs(table, transformed))
    try:
        done = train_job(job)
    except Interrupted as error:
        raise KeyboardInterrupt(str(error)) from error
    except FAILURES as error:
        raise PipelineStop(str(error)) from error
    explain = job.settings["model"]["explain"]
    export(done.model, transformed, table, fn_args.serving_model_dir, explain)
    extra = {}
    if job.settings["model"]["first_phase"]:
        small = add_first_phase(fn_args.serving_model_dir, done.model, job, table, transformed)
        extra["first_phase"] = small
    record = (
        _record(job, done, config)
        | extra
        | {"fingerprint": _fingerprint(done.model, fn_args.transform_graph_path)}
    )
    path = os.path.join(os.path.dirname(fn_args.serving_model_dir), "training.json")
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(record, indent=2, sort_keys=True))
    done.store.remove()


def _job(fn_args: Any, inputs: dict[str, Any]) -> Job:
    config = fn_args.custom_config
    settings = config["settings"]
    if fn_args.hyperparameters:  # a Tuner's, as a KerasTuner config
        settings = overlay(settings, decode(fn_args.hyperparameters["values"]))
    weights = earlier_weights(config["warm_start"])
    if weights is None:
        settings = settings | {"training": settings["training"] | {"warm_start": None}}
    learned = {k: v for k, v in settings["training"].items() if k not in _NOT_IN_IDENTITY}
    memory = settings["training"]["memory_mib"]
    train_hash, train_rows = data.read(fn_args.train_files, inputs, memory)
    eval_hash, eval_rows = data.read(fn_args.eval_files, inputs, memory)
    identity = {
        "data": train_hash,
        "eval_data": eval_hash,
        "inputs": inputs,
        "hyperparameters": {"model": settings["model"], "training": learned},
        "code": config["code"],
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        "warm_start": weights and weights["fingerprint"],
    }
    return Job(
        pipeline=config["pipeline"],
        train_files=list(fn_args.train_files),
        eval_files=list(fn_args.eval_files),
        inputs=inputs,
        settings=settings,
        checkpoints=config["checkpoints"],
        identity=identity,
        log_dir=os.path.join(fn_args.model_run_dir, "tensorboard"),
        weights=weights,
        rows={"train": train_rows, "eval": eval_rows},
    )


def decode(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings' values from a Tuner's, by dotted path.

    KerasTuner knows numbers and strings only: one of a list of choices, which may itself be a list,
    travels as JSON text.
    """
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in values.items()}


def version_to_start_from(folder: str, wanted: int | str) -> int | None:
    """The number of a version, or None: the first training of all, with `champion`, starts fresh.

    Args:
      folder: the model's in the registry.
      wanted: a number or a label.

    Raises:
      PipelineStop: there is no such version or label.
    """
    versions, labels = store.list_versions(folder), store.read_labels(folder)
    number = labels.get(wanted) if isinstance(wanted, str) else wanted
    if number is None and wanted == store.CHAMPION:
        return None
    if number not in versions:
        raise PipelineStop(
            f"training.warm_start.version is {wanted}, but {folder} has no such version or "
            f"label. Versions: {', '.join(map(str, versions)) or 'none'}. Labels: "
            f"{', '.join(labels) or 'none'}."
        )
    return number


def earlier_weights(source: dict[str, Any] | None) -> dict[str, Any] | None:
    """Where the weights of the version to start from are, for `core.warm_start`.

    Args:
      source: `folder` and `version` (a number, a label, or None), or None.

    Raises:
      PipelineStop: there is no such version.
    """
    if source is None or source["version"] is None:
        return None
    version = version_to_start_from(source["folder"], source["version"])
    if version is None:
        return None
    manifest = store.read_manifest(source["folder"], version)
    folder = store.version_folder(source["folder"], version)
    return {
        "version": version,
        "variables": os.path.join(folder, "variables", "variables"),
        "names": manifest["training"].get("weights", []),
        "fingerprint": manifest["fingerprint"],
    }


def _record(job: Job, done: Trained, config: dict[str, Any]) -> dict[str, Any]:
    """What `training.json` says, and with it the registry's manifest."""
    position = done.progress["position"]
    return {
        "hyperparameters": job.settings,
        "inputs": job.inputs,
        "code": config["code"],
        "steps": position["step"],
        "rows": done.progress["rows"],
        "seconds": round(position["seconds"], 3),
        "evaluations": position["evaluations"],
        "replicas": done.progress["replicas"],
        "checkpoints": done.progress["checkpoints"],
        "warm_start": job.weights and job.weights["version"],
        "cascade": {
            name: {key: feature[key] for key in ("model", "version", "digest")}
            for name, feature in config["table"]["columns"].items()
            if feature["kind"] == "prediction"
        },
        "library_versions": job.identity["libraries"] | {"tensorflow": done.progress["tensorflow"]},
    }


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
