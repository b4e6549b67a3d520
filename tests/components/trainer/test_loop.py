"""The training loop: it learns, repeats itself exactly, stops early, and stops on bad numbers."""

import copy
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core.data import Rows
from components.trainer.core.learning_rate import Schedule
from components.trainer.core.loop import Progress, Training, TrainingError

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
SETTINGS: dict[str, Any] = {
    "model": {"hidden": [16], "dropout": 0.2, "batch_norm": True, "wide": True, "l2": 0.001},
    "training": {
        "seed": 5,
        "epochs": 3,
        "steps": None,
        "global_batch_size": 32,
        "learning_rate": {
            "initial": 0.02,
            "schedule": "cosine",
            "warmup_steps": 2,
            "decay_to": 0.1,
        },
        "evaluate_every_steps": 5,
        "early_stopping": None,
    },
}


def _rows(count: int, problem: str = "binary", seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    numbers = random.normal(size=[count, 2]).astype(np.float32)
    ids = np.stack([random.integers(0, 4, count), random.integers(0, 6, count)], axis=1)
    score = numbers[:, 0] + (ids[:, 0] == 2) * 1.5 - 0.4
    labels: Any = (score > 0).astype(np.float32)
    if problem == "regression":
        labels = (1000 + 50 * score).astype(np.float32)
    if problem == "multiclass":
        labels = np.digitize(score, [-0.5, 0.5]).astype(np.int64)
    return Rows(*(tf.constant(v) for v in (numbers, ids.astype(np.int32), labels)))


def _settings(**training: Any) -> dict[str, Any]:
    settings = copy.deepcopy(SETTINGS)
    settings["training"].update(training)
    return settings


def _train(settings: dict[str, Any], problem: str = "binary") -> tuple[Training, list[Progress]]:
    inputs = INPUTS | {"problem": problem, "num_classes": 3 if problem == "multiclass" else 1}
    training = Training(_rows(500, problem), _rows(200, problem, 1), inputs, settings)
    reports: list[Progress] = []
    training.run(reports.append)
    return training, reports


def test_same_seed_gives_the_same_bits() -> None:
    first, second = (_train(_settings())[0] for _ in range(2))
    for a, b in zip(first.state, second.state, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_another_seed_gives_other_weights() -> None:
    first, second = (_train(_settings(seed=s))[0] for s in (1, 2))
    assert any(
        not np.array_equal(a.numpy(), b.numpy())
        for a, b in zip(first.model.variables, second.model.variables, strict=True)
    )


def test_every_row_of_an_epoch_is_seen_once() -> None:
    training, _ = _train(_settings(epochs=1))
    for epoch in (0, 1):
        order = training._order(tf.constant([5, epoch], tf.int32)).numpy()
        assert sorted(order) == list(range(500))
    assert training.steps == 16  # 500 rows in batches of 32, the last one of 20


@pytest.mark.parametrize(
    ("problem", "metric", "at_least"),
    [("binary", "auc", 0.9), ("multiclass", "accuracy", 0.7), ("regression", "mae", -25.0)],
)
def test_each_problem_type_learns(problem: str, metric: str, at_least: float) -> None:
    _, reports = _train(_settings(epochs=15), problem)
    value = reports[-1].evaluation[metric]
    assert (-value if metric == "mae" else value) > at_least


def test_loss_of_one_batch_goes_to_about_zero() -> None:
    """Useful Overfitting: a network that cannot learn 32 rows by heart has a fault."""
    settings = _settings(epochs=None, steps=400, evaluate_every_steps=400)
    settings["training"]["learning_rate"] = {
        "initial": 0.05,
        "schedule": "constant",
        "warmup_steps": 0,
        "decay_to": 0.0,
    }
    settings["model"] = {"hidden": [32], "dropout": 0.0, "batch_norm": False, "wide": True, "l2": 0}
    rows = _rows(32)
    training = Training(rows, rows, INPUTS, settings)
    training.run(lambda _: None)
    assert training.evaluate(rows)["loss"] < 0.01


def test_early_stopping_keeps_the_best_weights() -> None:
    settings = _settings(
        epochs=60, early_stopping={"metric": "loss", "patience": 3, "min_delta": 0.0}
    )
    settings["training"]["learning_rate"]["initial"] = 0.1
    training, reports = _train(settings)
    assert reports[-1].step < training.steps
    best = min(report.evaluation["loss"] for report in reports)
    assert training.evaluate(_rows(200, seed=1))["loss"] == pytest.approx(best, rel=1e-5)


def test_loss_that_is_not_a_number_names_the_step() -> None:
    rows = _rows(500)
    numbers = tf.where(tf.range(500)[:, None] == 123, float("inf"), rows.numbers)
    training = Training(rows._replace(numbers=numbers), _rows(200), INPUTS, _settings())
    epoch_order = training._order(tf.constant([5, 0], tf.int32)).numpy().tolist()
    step = epoch_order.index(123) // 32 + 1
    with pytest.raises(TrainingError, match=f"not a number at step {step} of 48"):
        training.run(lambda _: None)


def test_progress_says_where_it_is() -> None:
    _, reports = _train(_settings())
    assert [r.step for r in reports] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 48]
    assert str(reports[-1]).startswith("step 48 of 48, loss ")
    assert reports[-1].seconds_left == 0


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
