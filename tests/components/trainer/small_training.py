"""A small training without a pipeline: its rows, settings, files and job."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core.checkpoints import CheckpointError, Keeper, Store
from components.trainer.core.data import InMemory, Rows
from components.trainer.core.job import Job, train
from pipeline.config import Model, training_model

INPUTS: dict[str, Any] = {
    "problem": "binary",
    "label": "label",
    "num_classes": 1,
    "features": [
        {"name": "x", "size": None},
        {"name": "y", "size": None},
        {"name": "a", "size": 4, "embed": None},
        {"name": "b", "size": 6, "embed": 2},
    ],
}
MODEL: dict[str, Any] = {"hidden": [16], "dropout": 0.2, "batch_norm": True, "l2": 0.001}
TRAINING: dict[str, Any] = {
    "seed": 5,
    "epochs": 3,
    "global_batch_size": 32,
    "learning_rate": {"initial": 0.02, "schedule": "cosine", "warmup_steps": 2, "decay_to": 0.1},
    "evaluate_every_steps": 5,
}


def settings(model: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    """Settings as the Trainer gets them: complete."""
    chosen = copy.deepcopy(TRAINING) | training
    if "steps" in training:
        chosen["epochs"] = None
    return {
        "model": Model.model_validate(MODEL | (model or {})).model_dump(mode="json"),
        "training": training_model().model_validate(chosen).model_dump(mode="json"),
    }


def columns(count: int, problem: str = "binary", seed: int = 0) -> Rows:
    """Rows whose label depends on `x` and `a`."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=[count, 2]).astype(np.float32)
    ids = np.stack([random.integers(0, 4, count), random.integers(0, 6, count)], axis=1)
    score = numbers[:, 0] + (ids[:, 0] == 2) * 1.5 - 0.4
    labels: Any = (score > 0).astype(np.float32)
    if problem == "regression":
        labels = (1000 + 50 * score).astype(np.float32)
    if problem == "multiclass":
        labels = np.digitize(score, [-0.5, 0.5]).astype(np.int32)
    return Rows(*(tf.constant(v) for v in (numbers, ids.astype(np.int32), labels)))


def source(count: int, problem: str = "binary", seed: int = 0) -> InMemory:
    """The same, as a training takes them."""
    return InMemory(columns(count, problem, seed))


def inputs(problem: str = "binary") -> dict[str, Any]:
    """The feature spec."""
    return INPUTS | {"problem": problem, "num_classes": 3 if problem == "multiclass" else 1}


def write_examples(path: Path, rows: Rows, reverse: bool = False) -> None:
    """Writes rows as Transform does: gzipped TFRecords of tf.Examples.

    In which order the features of an example come differs from process to process: `reverse` it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for numbers, ids, label in zip(*(column.numpy() for column in rows), strict=True):
            values = dict(zip("xy", numbers, strict=True)) | {"label": label}
            feature = {
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
                for name, value in values.items()
            }
            for name, value in zip("ab", ids, strict=True):
                feature[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
            writer.write(_serialised(sorted(feature.items(), reverse=reverse)))


def _serialised(features: list[tuple[str, Any]]) -> bytes:
    """An example whose features come in this order: parsing merges a message's repeated field."""
    parts = [
        tf.train.Example(features=tf.train.Features(feature={name: value})).SerializeToString()
        for name, value in features
    ]
    return b"".join(parts)


def job(folder: Path, chosen: dict[str, Any], rows: int = 500, **identity: Any) -> Job:
    """A job over files of its own in `folder`, which are written if they are not there."""
    for split, count, seed in (("train", rows, 0), ("eval", 200, 1)):
        path = folder / "examples" / f"{split}-00000.gz"
        if not path.exists():
            write_examples(path, columns(count, seed=seed))
    return Job(
        pipeline="small",
        train_files=[str(folder / "examples" / "train-*")],
        eval_files=[str(folder / "examples" / "eval-*")],
        inputs=INPUTS,
        settings=chosen,
        checkpoints=str(folder / "checkpoints"),
        identity={"hyperparameters": {"training": chosen["training"]}} | identity,
        log_dir=str(folder / "tensorboard"),
    )


def arrays(training: Any) -> list[np.ndarray]:
    """Every variable of a training."""
    return [variable.numpy() for group in training.variables.values() for variable in group]


def last_checkpoint(store: Store) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """A training's newest checkpoint: its progress, and arrays by group."""
    newest = max(path.name for path in Path(store.folder).glob("step-*"))
    return store.read(int(newest.removeprefix("step-")))


def interrupt(job: Job, monkeypatch: pytest.MonkeyPatch, at_step: int) -> None:
    """Ends a training as a failing disk would, after the checkpoint before `at_step`."""
    save = Keeper.save

    def failing(keeper: Keeper, training: Any) -> None:
        if training.position.step >= at_step:
            raise CheckpointError("stop here")
        save(keeper, training)

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "save", failing)
        with pytest.raises(CheckpointError, match="stop here"):
            train(job)
