"""The training loop: it learns, repeats itself exactly, stops early, and stops on bad numbers."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core.data import InMemory
from components.trainer.core.loop import Schedule, Training, TrainingError
from tests.components.trainer import small_training as small


def _train(chosen: dict[str, Any], problem: str = "binary") -> tuple[Training, list[str]]:
    inputs = small.inputs(problem)
    training = Training(small.source(500, problem), small.source(200, problem, 1), inputs, chosen)
    lines: list[str] = []
    training.run(lines.append)
    return training, lines


def test_the_seed_decides_every_bit_and_where_it_pauses_none() -> None:
    """Stretches of steps depend on the machine's speed; results must not."""
    first, lines = _train(small.settings())
    second, _ = _train(small.settings(checkpoints={"every_steps": 3}))
    other, _ = _train(small.settings(seed=1))
    for a, b in zip(small.arrays(first), small.arrays(second), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [[e["train_loss"] for e in t.position.evaluations] for t in (first, second)]
    assert losses[0] == losses[1]
    pairs = zip(small.arrays(first), small.arrays(other), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)
    steps = [evaluation["step"] for evaluation in first.position.evaluations]
    assert steps == [5, 10, 15, 20, 25, 30, 35, 40, 45, 48]
    assert lines[-1].startswith("step 48 of 48, loss ")
    assert lines[-1].endswith(" examples/s, 0 s left")


@pytest.mark.parametrize(
    ("problem", "metric", "at_least"),
    [("binary", "auc", 0.9), ("multiclass", "accuracy", 0.7), ("regression", "mae", -25.0)],
)
def test_each_problem_type_learns(problem: str, metric: str, at_least: float) -> None:
    training, _ = _train(small.settings(epochs=15), problem)
    value = training.position.evaluations[-1][metric]
    assert (-value if metric == "mae" else value) > at_least


@pytest.mark.parametrize(
    "precision", ["float16", pytest.param("bfloat16", marks=pytest.mark.prove)]
)
def test_mixed_precision_learns_with_float32_weights(precision: str) -> None:
    training, _ = _train(small.settings(epochs=8, precision=precision))
    assert training.position.evaluations[-1]["auc"] > 0.85
    hidden = training.model.get_layer("hidden_0")
    assert (hidden.compute_dtype, hidden.variable_dtype) == (precision, "float32")
    assert training.model.output.dtype == "float32"
    names = [variable.name for variable in training.optimizer.variables]
    assert ("dynamic_scale" in names) == (precision == "float16")


def test_loss_of_one_batch_goes_to_about_zero() -> None:
    """Useful Overfitting: a network that cannot learn 32 rows by heart has a fault."""
    chosen = small.settings(
        {"hidden": [32], "dropout": 0.0, "batch_norm": False, "l2": 0},
        steps=400,
        evaluate_every_steps=400,
        learning_rate={"initial": 0.05},
    )
    training = Training(small.source(32), small.source(32), small.INPUTS, chosen)
    training.run(lambda _: None)
    assert training.evaluate()["loss"] < 0.01


def test_filling_of_the_last_batch_weighs_nothing() -> None:
    """The loss of a batch with 20 of 32 rows is the mean over the 20."""
    chosen = small.settings(
        {"dropout": 0.0, "batch_norm": False, "l2": 0}, steps=1, evaluate_every_steps=1
    )
    training = Training(small.source(20), small.source(20), small.INPUTS, chosen)
    before = training.evaluate()["loss"]
    training.run(lambda _: None)
    assert training.position.evaluations[0]["train_loss"] == pytest.approx(before, rel=1e-6)


def test_evaluation_counts_every_row_once() -> None:
    rows = small.columns(8192 + 77)
    whole = Training(small.source(64), InMemory(rows), small.INPUTS, small.settings())
    parts = [InMemory(rows.take(tf.range(start, end))) for start, end in ((0, 8192), (8192, 8269))]
    losses = [
        Training(small.source(64), part, small.INPUTS, small.settings()).evaluate()["loss"]
        for part in parts
    ]
    expected = (losses[0] * 8192 + losses[1] * 77) / 8269
    assert whole.evaluate()["loss"] == pytest.approx(expected, rel=1e-6)


def test_early_stopping_keeps_the_best_weights() -> None:
    chosen = small.settings(epochs=60, early_stopping={"metric": "loss", "patience": 3})
    chosen["training"]["learning_rate"]["initial"] = 0.1
    training, _ = _train(chosen)
    assert training.position.step < training.steps
    best = min(evaluation["loss"] for evaluation in training.position.evaluations)
    assert training.evaluate()["loss"] == pytest.approx(best, rel=1e-5)


def test_loss_that_is_not_a_number_names_the_step() -> None:
    rows = small.columns(500)
    numbers = tf.where(tf.range(500)[:, None] == 123, float("inf"), rows.numbers)
    source = InMemory(rows._replace(numbers=numbers))
    training = Training(source, small.source(200), small.INPUTS, small.settings())
    batches = iter(training.feed.distributed(training.strategy, 0))
    step = next(n for n in range(1, 17) if np.isinf(next(batches).numbers.numpy()).any())
    with pytest.raises(TrainingError, match=f"not a number at step {step} of 48"):
        training.run(lambda _: None)


def test_batch_that_replicas_cannot_share_is_refused() -> None:
    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(TrainingError, match="32, which 3 replicas cannot share"):
        Training(
            small.source(50),
            small.source(50),
            small.INPUTS,
            small.settings(),
            Three(),  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("constant", 0, 0.5),
        ("constant", 50, 1.0),
        ("cosine", 102, 0.1),
        ("cosine", 52, 0.55),
        ("exponential", 52, 0.1**0.5),
    ],
)
def test_schedule_warms_up_and_decays(schedule: str, step: int, factor: float) -> None:
    settings = {"initial": 2.0, "schedule": schedule, "warmup_steps": 2, "decay_to": 0.1}
    assert float(Schedule(settings, 102)(step)) == pytest.approx(2.0 * factor, rel=1e-5)
