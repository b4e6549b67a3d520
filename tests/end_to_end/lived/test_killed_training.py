"""Trainings killed at random moments: started again, they end with the same bits.

The moments are drawn from a seed that is printed; KILL_SEED=... repeats a series, KILLS=... sets
how many there are (`make soak`). `make test` kills at least 5 times, `make prove` at least 20.
"""

import json
import os
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.features.table import FeatureTable
from pipeline.config import Model, Training
from tests import small, warm
from tests.end_to_end.project import Project

ROOT = Path(__file__).parents[3]
SEED = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(10**6))
TRAINING: dict[str, Any] = {
    "seed": 3,
    "epochs": 20,
    "global_batch_size": 64,
    "learning_rate": {"initial": 0.01, "schedule": "cosine", "warmup_steps": 5, "decay_to": 0.1},
    "evaluate_every_steps": 10,
    "early_stopping": {"metric": "auc", "patience": 30},
    "checkpoints": {"every_steps": 4},
}
"""About 280 steps with a partial batch in each epoch, and a checkpoint every 4."""
MODEL = {"hidden": [16, 8], "dropout": 0.2, "batch_norm": True}
MEMORY = {"in memory": 256.0, "from shards": 0.02}


@dataclass
class Ended:
    """What a training left."""

    state: dict[str, str]
    training: dict[str, Any]
    predictions: np.ndarray
    curves: list[int]


class Trainer:
    """Executions of the Trainer on one project's artifacts."""

    def __init__(self, project: Project, folder: Path, memory: float):
        self.project, self.folder, self.memory = project, folder, memory
        self.folder.mkdir()

    def _artifact(self, component: str, output: str) -> Path:
        root = self.project.folder / "workspace" / "pipeline_root" / "small"
        (found,) = (root / component / output).iterdir()
        return found

    def _spec(self, out: Path) -> Path:
        examples = self._artifact("Transform", "transformed_examples")
        table = FeatureTable.model_validate(small.SETTINGS["features"])
        training = Training.model_validate({**TRAINING, "memory_mib": self.memory})
        fn_args = {
            "train_files": [str(examples / "Split-train" / "*")],
            "eval_files": [str(examples / "Split-eval" / "*")],
            "transform_graph_path": str(self._artifact("Transform", "transform_graph")),
            "serving_model_dir": str(out / "model" / "Format-Serving"),
            "model_run_dir": str(out / "model_run"),
            "hyperparameters": None,
            "custom_config": {
                "table": table.model_dump(mode="json", exclude={"slices", "exclude"}),
                "settings": {
                    "model": Model.model_validate(MODEL).model_dump(mode="json"),
                    "training": training.model_dump(mode="json"),
                },
                "pipeline": "small",
                "checkpoints": str(self.folder / "checkpoints"),
                "warm_start": None,
                "code": "1",
            },
        }
        path = self.folder / "spec.json"
        path.write_text(json.dumps({"fn_args": fn_args, "out": str(out)}))
        return path

    def execute(self, kill_after: float | None) -> tuple[float, bool]:
        """Runs to the end, or for so many seconds; returns those of training, and if it ended."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)  # as the local runner does with what was killed
        out.mkdir()
        log = out / "log"
        module, spec = "tests.end_to_end.killable", str(self._spec(out))
        process = warm.start(module, ROOT, [spec], os.environ, str(log))
        while not (log.exists() and "training\n" in log.read_text()):
            assert process.is_alive(), log.read_text()[-3000:]
            time.sleep(0.01)
        started = time.monotonic()
        process.join(kill_after)
        if process.is_alive():
            process.kill()
            process.join()
            return time.monotonic() - started, False
        assert process.exitcode == 0, log.read_text()[-3000:]
        return time.monotonic() - started, True

    def ended(self) -> Ended:
        """What the last execution left."""
        out = self.folder / "out"
        assert list((self.folder / "checkpoints").iterdir()) == []
        model = tf.saved_model.load(str(out / "model" / "Format-Serving"))
        raw = self._artifact("ExampleGen", "examples") / "Split-test"
        files = [str(path) for path in raw.iterdir()]
        examples = list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())
        answer = model.signatures["serving_default"](examples=tf.constant(examples))
        curves = [
            event.step
            for file in (out / "model_run" / "tensorboard").iterdir()
            for event in tf.compat.v1.train.summary_iterator(str(file))
            for value in event.summary.value
            if value.tag == "loss/eval"
        ]
        return Ended(
            json.loads((out / "state.json").read_text()),
            json.loads((out / "model" / "training.json").read_text()),
            answer["predictions"].numpy(),
            curves,
        )


def _timeless(evaluations: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in e.items() if k != "examples_per_second"} for e in evaluations]


def _assert_same(killed: Ended, whole: Ended) -> None:
    assert killed.state == whole.state
    assert killed.state.keys() >= {"model", "optimizer", "best"}
    assert killed.training["fingerprint"] == whole.training["fingerprint"]
    evaluations = [_timeless(e.training["evaluations"]) for e in (killed, whole)]
    assert evaluations[0] == evaluations[1]
    np.testing.assert_array_equal(killed.predictions, whole.predictions)
    assert killed.curves == whole.curves == [e["step"] for e in evaluations[0]]


def _series(project: Project, folder: Path, memory: float, kills: int) -> None:
    print(f"KILL_SEED={SEED}")
    chance = random.Random(SEED)
    trainer = Trainer(project, folder / "trainer", memory)
    seconds, _ = trainer.execute(None)
    whole = trainer.ended()
    assert whole.training["steps"] > 200
    made = resumed = 0
    while made < kills or not resumed:  # the first moments are before the first checkpoint
        finished = False
        while not finished:
            # A resumed training has less to do; a moment beyond its end lets it finish.
            wait = chance.uniform(0, seconds) if made < kills or not resumed else None
            _, finished = trainer.execute(wait)
            made += not finished
            resumed += bool(not finished and list(trainer.folder.glob("checkpoints/*/step-*")))
        _assert_same(trainer.ended(), whole)
    print(f"{made} kills, {resumed} of them after a checkpoint")


def _kills(default: int) -> int:
    return int(os.environ.get("KILLS") or default)


@pytest.mark.timeout(7200)
def test_killed_training_ends_with_the_same_bits(project: Project, tmp_path: Path) -> None:
    _series(project, tmp_path, MEMORY["in memory"], _kills(5))


@pytest.mark.prove
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("memory", MEMORY)
def test_training_killed_often_ends_with_the_same_bits(
    project: Project, tmp_path: Path, memory: str
) -> None:
    _series(project, tmp_path, MEMORY[memory], _kills(10))
