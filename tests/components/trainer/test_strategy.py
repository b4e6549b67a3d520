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


EXACT = {"dropout": 0.0, "batch_norm": False, "members": 3}
NORMED = {"dropout": 0.0, "batch_norm": True}
SCALED = {"learning_rate": {"initial": 0.01, "scale_by_replicas": True}, "epochs": 8}
PROGRAM = """
import json, sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
parts = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, parts)
from components.trainer.core import strategy
from components.trainer.core.loop import Training
from tests.components.trainer import small_training as small
trained, exchanges, all_reduce = [], [], tf.distribute.ReplicaContext.all_reduce
def noting(context, operation, value, **options):
    exchanges.append([type(part).__name__ for part in tf.nest.flatten(value)])
    return all_reduce(context, operation, value, **options)
tf.distribute.ReplicaContext.all_reduce = noting
model, options = json.loads(sys.argv[1])
for name in ("one_device", "mirrored"):
    chosen = small.settings(model, strategy=name, **options)
    made = strategy.create(chosen["training"])
    training = Training(small.source(500), small.source(203, seed=1), small.INPUTS, chosen, made)
    training.run(lambda progress: None)
    trained.append({
        "replicas": training.replicas,
        "exchanges": exchanges,
        "rate": float(training.optimizer.learning_rate),
        "weights": {v.path: v.numpy().ravel().tolist() for v in training.model.weights},
        "evaluations": training.position.evaluations,
    })
print(json.dumps(trained))
"""


def trained(model: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """Trains on one device and on two, in a process whose CPU is divided into two logical ones."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([model, options])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_two_replicas_learn_what_one_device_does() -> None:
    """Gradients are summed, the last batch of 20 of 32 rows is divided, metrics are merged."""
    one, two = trained(EXACT)
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert len(two["exchanges"]) == 2, "a step of two replicas was traced, with one exchange"
    assert all("IndexedSlices" not in kinds for kinds in two["exchanges"]), "would be sent apart"
    assert one["weights"].keys() == two["weights"].keys()
    for name, values in one["weights"].items():
        assert values == pytest.approx(two["weights"][name], abs=1e-6), name
    for a, b in zip(two["evaluations"], one["evaluations"], strict=True):
        for name in ("train_loss", "loss", "auc", "accuracy"):
            assert a[name] == pytest.approx(b[name], abs=1e-6)


@pytest.mark.prove
def test_batch_normalisation_is_over_the_whole_batch_and_rates_and_losses_scale() -> None:
    one, two = trained(NORMED, epochs=1)
    for name in ("batch_norm_0/moving_variance", "hidden_0/kernel", "deep/kernel"):
        assert two["weights"][name] == pytest.approx(one["weights"][name], abs=1e-4)
    one, two = trained({"batch_norm": True}, precision="float16", **SCALED)
    assert two["evaluations"][-1]["auc"] > 0.9
    assert two["rate"] == pytest.approx(2 * one["rate"])


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
