"""Training in the TPU environment, here on its CPU, and exporting in the ordinary one."""

import json
import logging
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from components.errors import PipelineStop
from components.features.table import FeatureTable
from components.tpu import environment, run
from components.trainer.core.interruption import Interrupted
from components.trainer.core.job import Job, Trained
from pipeline.config import Model, training_model
from tests.components.trainer import small_training
from tests.end_to_end.project import Project
from tests.small import SETTINGS as SMALL

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


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    result = project.run()
    assert result.code == 0, result.output
    return project


def _output(project: Project, component: str, output: str) -> Path:
    root = project.folder / "workspace" / "pipeline_root" / "small"
    [folder] = (root / component / output).iterdir()
    return folder


def _fn_args(project: Project, **training: Any) -> Any:
    """What TFX gives the Trainer."""
    examples = _output(project, "Transform", "transformed_examples")
    settings = {
        "model": Model.model_validate(SMALL["model"]).model_dump(mode="json"),
        "training": training_model()
        .model_validate(SMALL["training"] | training)
        .model_dump(mode="json"),
    }
    return SimpleNamespace(
        custom_config={
            "table": FeatureTable.model_validate(SMALL["features"]).model_dump(mode="json"),
            "settings": settings,
            "pipeline": "small",
            "checkpoints": str(project.folder / "tpu" / "checkpoints"),
            "warm_start": None,
            "code": "code",
        },
        transform_graph_path=str(_output(project, "Transform", "transform_graph")),
        train_files=[str(examples / "Split-train" / "*")],
        eval_files=[str(examples / "Split-eval" / "*")],
        hyperparameters=None,
        serving_model_dir=str(project.folder / "tpu" / "model" / "Format-Serving"),
        model_run_dir=str(project.folder / "tpu" / "run"),
    )


def _columns(inputs: dict[str, Any], transformed: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    """Transformed features as the network takes them."""
    numbers = [transformed[f["name"]] for f in inputs["features"] if f["size"] is None]
    ids = [transformed[f["name"]] for f in inputs["features"] if f["size"] is not None]
    return {"numbers": np.stack(numbers, 1), "ids": np.stack(ids, 1).astype(np.int32)}


def _predicted_there(job: Job, columns: dict[str, np.ndarray], folder: Path) -> np.ndarray:
    """What the TPU environment's own model predicts, from its last checkpoint."""
    (folder / "job.json").write_text(json.dumps(asdict(run.with_environment(job))))
    np.savez(folder / "columns.npz", **columns)
    files = [str(folder / name) for name in ("job.json", "columns.npz", "predictions.npy")]
    command = [environment.ready(), "-c", PREDICT, *files]
    subprocess.run(command, cwd=environment.PROJECT, env=environment.variables(), check=True)
    return np.load(files[2])


def test_export_of_what_was_trained_there_predicts_the_same(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fn_args = _fn_args(project)
    files = _output(project, "ExampleGen", "examples").glob("Split-test/*.gz")
    records = tf.data.TFRecordDataset([str(f) for f in files], compression_type="GZIP")
    raw = tf.constant(list(records.as_numpy_iterator()))
    seen: dict[str, np.ndarray] = {}
    train_on_tpu = run.train_on_tpu

    def kept(job: Job) -> Trained:
        """Also asks the TPU environment, before the checkpoint goes."""
        done = train_on_tpu(job)
        layer = tft.TFTransformOutput(fn_args.transform_graph_path)
        parsed = tf.io.parse_example(raw, layer.raw_feature_spec())
        transformed = layer.transform_features_layer()(parsed)
        seen["there"] = _predicted_there(job, _columns(job.inputs, transformed), tmp_path)
        return done

    monkeypatch.setattr(run, "train_on_tpu", kept)
    run.run_fn(fn_args)
    model = tf.saved_model.load(fn_args.serving_model_dir)
    here = model.signatures["serving_default"](examples=raw)["predictions"].numpy()
    assert len(here) > 200
    assert np.ptp(here) > 0.5
    np.testing.assert_allclose(here, seen["there"], atol=1e-5)


def test_without_a_tpu_it_says_so_and_does_not_hang(project: Project) -> None:
    started = time.monotonic()
    with pytest.raises(PipelineStop, match="the TPU 'local' cannot be found or reached"):
        run.run_fn(_fn_args(project, strategy="tpu"))
    assert time.monotonic() - started < 120


def test_tpu_elsewhere_that_is_not_there_is_told(tmp_path: Path) -> None:
    tpu = {"name": "grpc://127.0.0.1:9", "zone": "us-central1-b", "project": "none"}
    settings = small_training.settings(strategy="tpu", tpu=tpu)
    with pytest.raises(Exception, match=r"the TPU 'grpc://127.0.0.1:9' cannot be .* or reached"):
        run.train_on_tpu(small_training.job(tmp_path, settings))


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
