"""A network of several members: an ensemble that trains, resumes and exports as one network."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core.heads import HEADS
from components.trainer.core.loop import Training, build_model
from tests.components.trainer import small_training

ENSEMBLE = {"members": 4, "hidden": [16, 8]}


def _positions(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same feature spec, with `x` as a position among 3 bins."""
    first, *others = inputs["features"]
    return inputs | {"features": [first | {"bins": 3}, *others]}


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_a_loss_and_a_prediction_are_the_means_of_the_members(problem: str) -> None:
    inputs = _positions(small_training.inputs(problem))
    model = build_model(inputs, small_training.settings(ENSEMBLE), 1000.0, 50.0)
    rows, head = small_training.columns(20, problem), HEADS[problem]()
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
    model = build_model(inputs, small_training.settings({"hidden": [1], "dropout": 0}), 0.0, 1.0)
    places = tf.constant([[-1.0], [0.0], [0.5], [1.0], [2.5], [3.0]])
    model.get_layer("linear").kernel.assign([[1.0], [10.0], [100.0], [1000.0]])
    for name in ("hidden_0", "deep"):
        model.get_layer(name).kernel.assign(tf.zeros_like(model.get_layer(name).kernel))
    logits = model({"numbers": places, "ids": tf.zeros([6, 0], tf.int32)})
    np.testing.assert_allclose(logits[:, 0], [1000.0, 0.0, 0.5, 1.0, 61.0, 111.0])


def test_members_train_together_and_end_with_different_weights() -> None:
    settings = small_training.settings(ENSEMBLE, epochs=8)
    training = Training(
        small_training.source(400),
        small_training.source(200, seed=1),
        _positions(small_training.INPUTS),
        settings,
    )
    evaluations: list[float] = []
    training.run(lambda progress: evaluations.append(progress.evaluation["auc"]))
    assert evaluations[-1] > 0.85
    kernel = training.model.get_layer("deep").kernel.numpy()
    assert all(np.abs(kernel[0] - other).max() > 0.01 for other in kernel[1:])


def test_the_same_seed_gives_the_same_bits() -> None:
    def trained() -> list[np.ndarray]:
        training = Training(
            small_training.source(200),
            small_training.source(100, seed=1),
            _positions(small_training.INPUTS),
            small_training.settings(ENSEMBLE, epochs=2),
        )
        training.run(lambda _: None)
        return small_training.arrays(training)

    for first, second in zip(trained(), trained(), strict=True):
        np.testing.assert_array_equal(first, second)
