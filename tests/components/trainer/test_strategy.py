"""Strategies: several replicas learn what one does, and what a machine lacks is said at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.trainer.core import strategy
from components.trainer.core.strategy import StrategyError

ROOT = Path(__file__).parents[3]


def _options(name: str, **more: Any) -> dict[str, Any]:
    return {"strategy": name, "tpu": None, "workers": None, **more}


def _trained(replicas: int, model: dict[str, Any], **training: Any) -> dict[str, Any]:
    """Trains in a process of its own, whose CPU is divided into logical devices."""
    program = f"""
import json, sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
parts = [tf.config.LogicalDeviceConfiguration()] * {replicas}
tf.config.set_logical_device_configuration(cpu, parts)
from components.trainer.core import strategy
from components.trainer.core.loop import Training
from tests.components.trainer import small_training as small
name = "mirrored" if {replicas} > 1 else "one_device"
chosen = small.settings({model!r}, strategy=name, **{training!r})
made = strategy.create(chosen["training"])
training = Training(small.source(500), small.source(203, seed=1), small.INPUTS, chosen, made)
training.run(lambda progress: None)
print(json.dumps({{
    "replicas": training.replicas,
    "rate": float(training.optimizer.learning_rate),
    "weights": {{v.path: v.numpy().ravel().tolist() for v in training.model.weights}},
    "evaluations": training.position.evaluations,
}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


EXACT = {"dropout": 0.0, "batch_norm": False}


@pytest.fixture(scope="module")
def one_device() -> dict[str, Any]:
    return _trained(1, EXACT)


def _assert_close(a: dict[str, Any], b: dict[str, Any], tolerance: float) -> None:
    assert a["weights"].keys() == b["weights"].keys()
    for name, values in a["weights"].items():
        assert values == pytest.approx(b["weights"][name], abs=tolerance), name


def test_two_replicas_learn_what_one_device_does(one_device: dict[str, Any]) -> None:
    """Gradients are summed, the last batch of 20 of 32 rows is divided, metrics are merged."""
    two = _trained(2, EXACT)
    assert two["replicas"] == 2
    _assert_close(two, one_device, 1e-6)
    for a, b in zip(two["evaluations"], one_device["evaluations"], strict=True):
        for name in ("train_loss", "loss", "auc", "accuracy"):
            assert a[name] == pytest.approx(b[name], abs=1e-6)


def test_batch_normalisation_is_over_the_whole_batch() -> None:
    model = {"dropout": 0.0, "batch_norm": True}
    one, two = (_trained(n, model, epochs=1) for n in (1, 2))
    names = ("batch_norm_0/moving_variance", "hidden_0/kernel", "deep/kernel")
    for name in names:
        assert two["weights"][name] == pytest.approx(one["weights"][name], abs=1e-4)


def test_learning_rate_scales_by_replicas_if_asked(one_device: dict[str, Any]) -> None:
    rate = {"initial": 0.02, "scale_by_replicas": True}
    two = _trained(2, EXACT, learning_rate=rate, epochs=1)
    assert two["rate"] == pytest.approx(0.04)


def test_loss_scaling_works_on_replicas() -> None:
    two = _trained(2, {"batch_norm": True}, precision="float16", epochs=8)
    assert two["evaluations"][-1]["auc"] > 0.9


CLUSTER = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}


@pytest.mark.parametrize(
    ("name", "tf_config", "words"),
    [
        ("mirrored", None, "finds 0 GPUs and 1 CPU device here. Set training.strategy=auto"),
        (
            "multi_worker",
            None,
            "neither TF_CONFIG nor training.workers. Set training.workers to start",
        ),
        ("multi_worker", "{not json", "TF_CONFIG is not what TensorFlow expects: '{not json'"),
        ("multi_worker", '{"cluster": {"worker": 5}}', "is not what TensorFlow expects"),
        ("multi_worker", '{"cluster": {"worker": []}}', "neither TF_CONFIG nor training.workers"),
        (
            "multi_worker",
            '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"index": "x"}}',
            "is not what TensorFlow expects",
        ),
        (
            "multi_worker",
            json.dumps({"cluster": {"worker": ["a:1"], "ps": ["b:2"]}}),
            "tasks of type ps; only 'chief' and 'worker'",
        ),
        ("auto", json.dumps(CLUSTER), "TF_CONFIG names 2 workers, but training.strategy is 'auto'"),
        ("tpu", None, "the TPU 'local' cannot be found or reached"),
    ],
)
def test_impossible_choice_says_what_was_found_and_what_to_set(
    monkeypatch: pytest.MonkeyPatch, name: str, tf_config: str | None, words: str
) -> None:
    if tf_config is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", tf_config)
    with pytest.raises(StrategyError) as error:
        strategy.create(_options(name))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("cluster", "task", "chief", "number"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), True, 0),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), False, 1),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("chief", 0), True, 0),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("worker", 0), False, 1),
        ({"chief": ["a:1"]}, ("chief", 0), True, 0),
        (None, None, True, 0),
    ],
)
def test_one_process_of_a_group_writes(
    monkeypatch: pytest.MonkeyPatch,
    cluster: dict[str, list[str]] | None,
    task: tuple[str, int] | None,
    chief: bool,
    number: int,
) -> None:
    found = {"cluster": cluster, "task": task and {"type": task[0], "index": task[1]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(found) if cluster else "")
    assert strategy.is_chief() is chief
    assert strategy.worker_number() == number
