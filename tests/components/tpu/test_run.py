"""Training in the TPU environment, here on its CPU, and taking the model over from there."""

import json
import logging
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.tpu import environment, run
from components.trainer.core.heads import HEADS
from components.trainer.core.interruption import Interrupted
from components.trainer.core.loop import TrainingError
from tests.components.trainer import small_training

pytestmark = pytest.mark.prove

PREDICT = """
import json, sys
import numpy as np
import tensorflow as tf
from components.trainer.core.heads import HEADS
from components.trainer.core.job import Job, trained
assert tf.__version__.startswith("2.20.")
job, columns = Job(**json.load(open(sys.argv[1]))), np.load(sys.argv[2])
model = trained(job, 1).model
logits = model({name: columns[name] for name in ("numbers", "ids")}, training=False)
np.save(sys.argv[3], HEADS[job.inputs["problem"]]().predict(model, logits))
"""


@pytest.fixture(scope="module", autouse=True)
def _environment() -> None:
    environment.make()


def test_what_was_trained_there_predicts_the_same_here(tmp_path: Path) -> None:
    job = small_training.job(tmp_path, small_training.settings({"members": 3}))
    model = run.train_on_tpu(job).model
    rows = small_training.columns(300)
    columns = {"numbers": rows.numbers.numpy(), "ids": rows.ids.numpy()}
    here = HEADS["binary"]().predict(model, model(columns, training=False)).numpy()
    (tmp_path / "job.json").write_text(json.dumps(asdict(run.with_environment(job))))
    np.savez(tmp_path / "columns.npz", **columns)
    files = [str(tmp_path / name) for name in ("job.json", "columns.npz", "predictions.npy")]
    command = [environment.ready(), "-c", PREDICT, *files]
    subprocess.run(command, cwd=environment.PROJECT, env=environment.variables(), check=True)
    assert np.ptp(here) > 0.5
    np.testing.assert_allclose(here, np.load(files[2]), atol=1e-5)


@pytest.mark.parametrize(
    "tpu", [None, {"name": "grpc://127.0.0.1:9", "zone": "us-central1-b", "project": "none"}]
)
def test_without_a_tpu_it_says_so_and_does_not_hang(tmp_path: Path, tpu: Any) -> None:
    settings, started = small_training.settings(strategy="tpu", tpu=tpu), time.monotonic()
    with pytest.raises(TrainingError, match=r"the TPU '.*' cannot be found or reached"):
        run.train_on_tpu(small_training.job(tmp_path, settings))
    assert time.monotonic() - started < 120


def test_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = small_training.settings(epochs=60, evaluate_every_steps=100)
    whole = run.train_on_tpu(small_training.job(tmp_path, settings, run="whole"))
    job = small_training.job(tmp_path, settings, run="interrupted")
    interrupter = _Interrupter()
    logging.getLogger("progress").addHandler(interrupter)
    logging.getLogger("progress").setLevel(logging.INFO)
    try:
        with pytest.raises(Interrupted, match="checkpoint written"):
            run.train_on_tpu(job)
    finally:
        logging.getLogger("progress").removeHandler(interrupter)
    resumed = run.train_on_tpu(job)
    assert resumed.progress["checkpoints"]["resumed_at"]
    for a, b in zip(whole.model.variables, resumed.model.variables, strict=True):
        np.testing.assert_array_equal(a, b)


class _Interrupter(logging.Handler):
    """Sends SIGTERM to this process at the first line of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        logging.getLogger("progress").removeHandler(self)
