"""A small job for tests with real worker processes."""

import random
from pathlib import Path
from typing import Any

import tensorflow as tf

from components.trainer.core.job import Job

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
PLAIN = {"hidden": [16], "dropout": 0.0, "batch_norm": False, "wide": True, "l2": 0.001}
ALL_ON = PLAIN | {"dropout": 0.2, "batch_norm": True}

_TRAINING: dict[str, Any] = {
    "seed": 5,
    "epochs": None,
    "steps": 120,
    "global_batch_size": 64,
    "learning_rate": {
        "initial": 0.02,
        "schedule": "cosine",
        "warmup_steps": 2,
        "decay_to": 0.1,
        "scale_by_replicas": False,
    },
    "evaluate_every_steps": 40,
    "early_stopping": {"metric": "auc", "patience": 100, "min_delta": 0.0},
    "precision": "float32",
    "strategy": "multi_worker",
    "workers": 2,
    "restarts": 3,
    "tpu": None,
    "checkpoints": {"every_seconds": None, "every_steps": 10, "keep": 2},
    "memory_mib": 256.0,
    "warm_start": None,
}


def write_rows(path: Path, count: int, seed: int, extreme: tuple[int, ...] = ()) -> None:
    """Writes transformed examples; those at `extreme` have gradients that float16 cannot hold."""
    chance = random.Random(seed)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for number in range(count):
            x, y = chance.gauss(0, 1), chance.gauss(0, 1)
            a, b = chance.randrange(4), chance.randrange(6)
            label = float(x + (a == 2) * 1.5 - 0.4 + chance.gauss(0, 0.3) > 0)
            if number in extreme:
                x, label = -1000.0, 1.0
            writer.write(_example({"x": x, "y": y, "label": label}, {"a": a, "b": b}))


def _example(floats: dict[str, float], ids: dict[str, int]) -> bytes:
    feature = {k: tf.train.Feature(float_list={"value": [v]}) for k, v in floats.items()}
    feature |= {k: tf.train.Feature(int64_list={"value": [v]}) for k, v in ids.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def make(folder: Path, store: Path, model: dict[str, Any] = ALL_ON, **training: Any) -> Job:
    """A job on the rows in `folder`, which it writes unless they are there; `store` is shared."""
    if not folder.exists():
        folder.mkdir(parents=True)
        write_rows(folder / "train.gz", 1000, 0)
        write_rows(folder / "eval.gz", 300, 1)
    settings = {"model": model, "training": _TRAINING | training}
    return Job(
        pipeline="test",
        train_files=[str(folder / "train.gz")],
        eval_files=[str(folder / "eval.gz")],
        inputs=INPUTS,
        settings=settings,
        checkpoints=str(store),
        identity={"hyperparameters": settings},
        log_dir=str(store / "tensorboard"),
    )
