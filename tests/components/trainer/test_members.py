"""A network of several members: an ensemble that trains, resumes and exports as one network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core.data import described
from components.trainer.core.heads import head_of
from components.trainer.core.job import train
from components.trainer.core.loop import Training, build_model
from components.trainer.core.warm_start import warm_start, weights_by_name
from tests.components.trainer import small_training

ENSEMBLE = {"members": 4, "hidden": [16, 8]}


def _positions(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same feature spec, with `x` as a position among 3 bins."""
    first, *others = inputs["features"]
    return inputs | {"features": [first | {"bins": 3}, *others]}


LABELS = np.float32([950, 1050])


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_a_loss_and_a_prediction_are_the_means_of_the_members(problem: str) -> None:
    inputs = _positions(small_training.inputs(problem))
    model = build_model(inputs, small_training.settings(ENSEMBLE), described(LABELS))
    rows, head = small_training.columns(20, problem), head_of(problem, inputs["num_classes"])
    logits = model({"numbers": rows.numbers, "ids": rows.ids})
    assert logits.shape == (20, 4, inputs["num_classes"])
    alone = [logits[:, member] for member in range(4)]
    losses = [head.losses(model, rows.labels, one).numpy() for one in alone]
    predictions = np.stack([head.predict(model, one).numpy() for one in alone])
    np.testing.assert_allclose(
        head.losses(model, rows.labels, logits), np.mean(losses, axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(head.predict(model, logits), predictions.mean(axis=0), rtol=1e-5)
    spread = head.uncertainty(model, logits)
    np.testing.assert_allclose(spread, predictions.std(axis=0), rtol=1e-3, atol=1e-6)
    assert float(tf.reduce_min(spread)) > 0


def test_positions_make_a_piecewise_linear_function() -> None:
    """Between two edges the wide part is linear; its slope may change at each; missing is apart."""
    inputs = small_training.INPUTS | {"features": [{"name": "x", "size": None, "bins": 3}]}
    model = build_model(inputs, small_training.settings({"hidden": [1], "dropout": 0}))
    places = tf.constant([[-1.0], [0.0], [0.5], [1.0], [2.5], [3.0]])
    model.get_layer("linear").kernel.assign([[1.0], [10.0], [100.0], [1000.0]])
    for name in ("hidden_0", "deep"):
        model.get_layer(name).kernel.assign(tf.zeros_like(model.get_layer(name).kernel))
    logits = model({"numbers": places, "ids": tf.zeros([6, 0], tf.int32)})
    np.testing.assert_allclose(logits[:, 0], [1000.0, 0.0, 0.5, 1.0, 61.0, 111.0])


@pytest.mark.parametrize(
    "precision",
    [
        "float32",
        pytest.param("bfloat16", marks=pytest.mark.prove),
        pytest.param("float16", marks=pytest.mark.prove),
    ],
)
def test_killed_it_ends_with_the_same_bits_and_another_starts_from_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    how = {"precision": precision, "epochs": 4, "checkpoints": {"every_steps": 7}}
    inputs, settings = _positions(small_training.INPUTS), small_training.settings(ENSEMBLE, **how)
    first, killed = (
        replace(small_training.job(tmp_path / name, settings), inputs=inputs)
        for name in ("whole", "killed")
    )
    whole = train(first, hand_over=True)
    assert whole.progress["position"]["evaluations"][-1]["auc"] > 0.85
    kernel = whole.model.get_layer("deep").kernel.numpy()
    assert all(np.abs(kernel[0] - other).max() > 0.01 for other in kernel[1:])
    small_training.interrupt(killed, monkeypatch, 28)
    resumed = train(killed, hand_over=True)
    assert resumed.progress["checkpoints"]["resumed_at"] == [21]
    for one, other in zip(whole.model.variables, resumed.model.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    module = tf.Module()
    module.weights, module.network = weights_by_name(whole.model), whole.model
    tf.saved_model.save(module, str(tmp_path / "version"))
    how |= {"seed": 99, "warm_start": {"version": 7}}
    rows = small_training.source(200)
    warm = Training(rows, rows, inputs, small_training.settings(ENSEMBLE, **how))
    variables = str(tmp_path / "version" / "variables" / "variables")
    warm_start(warm, {"version": 7, "variables": variables, "names": []})
    for one, other in zip(whole.model.weights, warm.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)
