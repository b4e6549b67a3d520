"""The search: its trials are the Trainer's trainings, and the best of them wins."""

import copy
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from components.errors import PipelineStop
from components.settings import overlay
from components.trainer.core.data import InMemory, Rows
from components.trainer.core.loop import Training
from components.trainer.run import decode
from components.tuning.settings import Tuning
from components.tuning.tuner import LoopTuner
from pipeline.config import Model
from pipeline.config import Training as TrainingSettings

INPUTS: dict[str, Any] = {
    "problem": "binary",
    "label": "label",
    "num_classes": 1,
    "features": [{"name": "x", "size": None}, {"name": "a", "size": 4, "embed": None}],
}
SETTINGS: dict[str, Any] = {
    "model": Model(hidden=[8], dropout=0.1).model_dump(mode="json"),
    "training": TrainingSettings.model_validate(
        {
            "seed": 0,
            "epochs": 2,
            "global_batch_size": 32,
            "learning_rate": {"initial": 0.02},
            "evaluate_every_steps": 8,
        }
    ).model_dump(mode="json"),
}
RATE = "training.learning_rate.initial"
SEARCH = {
    RATE: {"min": 0.0001, "max": 0.1, "log": True},
    "model.hidden": {"choices": [[4], [8, 4], []]},
    "training.global_batch_size": {"min": 16, "max": 64, "integer": True},
}


def _rows(count: int, seed: int) -> InMemory:
    random = np.random.default_rng(seed)
    numbers = random.normal(size=[count, 1]).astype(np.float32)
    ids = random.integers(0, 4, [count, 1]).astype(np.int32)
    labels = (numbers[:, 0] + (ids[:, 0] == 2) > 0).astype(np.float32)
    return InMemory(Rows(*(tf.constant(v) for v in (numbers, ids, labels))))


SPLITS: dict[str, Any] = {"train": _rows(300, 0), "held_out": _rows(200, 1), "inputs": INPUTS}


def _search(
    folder: Path, search: dict[str, Any], trials: int = 3, stopping: Any = None, **tuning: Any
) -> LoopTuner:
    settings = copy.deepcopy(SETTINGS)
    settings["training"]["early_stopping"] = stopping
    space = Tuning.model_validate({"trials": trials, "search": search, **tuning})
    tuner = LoopTuner(space, settings, SPLITS, str(folder))
    tuner.search(verbose=0)
    return tuner


def _scores(tuner: LoopTuner) -> dict[str, tuple[dict[str, Any], float]]:
    trials = tuner.oracle.trials
    return {name: (decode(t.hyperparameters.values), t.score) for name, t in trials.items()}


def test_winner_has_the_lowest_eval_loss_of_the_trainers_own_loop(tmp_path: Path) -> None:
    tuner = _search(tmp_path, SEARCH, trials=2)
    losses = {}
    for name, (values, score) in _scores(tuner).items():
        training = Training(**SPLITS, settings=overlay(SETTINGS, values))
        training.run(lambda _: None)
        losses[name] = training.evaluate()["loss"]
        assert score == losses[name], values
    assert len(set(losses.values())) == 2
    (best,) = tuner.oracle.get_best_trials(1)
    assert best.trial_id == min(losses, key=lambda name: losses[name])
    config = tuner.get_best_hyperparameters()[0].get_config()
    assert decode(config["values"]) == _scores(tuner)[best.trial_id][0]


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_same_seed_draws_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """With the loss as a formula: the trainings' own repeatability is the test before."""
    monkeypatch.setattr(
        LoopTuner, "_train", lambda _, name, values: {"loss": abs(values[RATE] - 0.01)}
    )
    tuners = [
        _search(tmp_path / str(n), {RATE: SEARCH[RATE]}, trials=6, algorithm=algorithm)
        for n in range(2)
    ]
    assert _scores(tuners[0]) == _scores(tuners[1])
    assert len({score for _, score in _scores(tuners[0]).values()}) == 6


def test_early_stoppings_metric_decides(tmp_path: Path) -> None:
    stopping = {"metric": "auc", "patience": 2, "min_delta": 0.0}
    tuner = _search(tmp_path, {RATE: {"choices": [0.00001, 0.05]}}, trials=2, stopping=stopping)
    scores = sorted(_scores(tuner).values(), key=lambda found: found[1])
    assert scores[0][1] < 0.8 and scores[1][1] > 0.9
    assert decode(tuner.get_best_hyperparameters()[0].values) == scores[1][0] == {RATE: 0.05}


def test_trial_without_a_loss_cannot_win_and_a_search_of_such_says_what_to_do(
    tmp_path: Path,
) -> None:
    tuner = _search(tmp_path / "two", {RATE: {"choices": [1e38, 0.01]}}, trials=2)
    assert decode(tuner.get_best_hyperparameters()[0].values) == {RATE: 0.01}
    assert sorted(t.status for t in tuner.oracle.trials.values()) == ["COMPLETED", "FAILED"]
    with pytest.raises(PipelineStop, match=r"None of the 1 trials .* Lower the values of training"):
        _search(tmp_path / "one", {RATE: {"choices": [1e38]}}, trials=1)


def test_fault_of_the_code_ends_the_search(tmp_path: Path) -> None:
    with pytest.raises(keras_tuner.errors.FatalError, match=r"trial 1 of 3 with .*model\.hidden"):
        _search(tmp_path, {"model.hidden": {"choices": [["eight"]]}})
