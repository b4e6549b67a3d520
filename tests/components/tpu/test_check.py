"""Readiness for a TPU, as far as a CPU can tell: each rule finds what breaks it, and where."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.features.table import FeatureTable
from components.tpu import check as check_tpu
from components.tpu.findings import Finding
from components.tpu.stand_in import stand_in_batch, stand_in_inputs, stand_in_training
from components.trainer.core import model as network
from components.trainer.core.heads import Head
from components.trainer.core.loop import Training
from tests.small import SETTINGS as SMALL

TABLE = FeatureTable.model_validate(SMALL["features"])
INPUTS = stand_in_inputs(TABLE)
SETTINGS: dict[str, Any] = {
    "model": {"hidden": [8], "dropout": 0.3, "batch_norm": True, "wide": True, "l2": 0.01},
    "training": {
        "seed": 3,
        "epochs": 2,
        "steps": None,
        "global_batch_size": 64,
        "learning_rate": {
            "initial": 0.02,
            "schedule": "cosine",
            "warmup_steps": 2,
            "decay_to": 0.0,
            "scale_by_replicas": False,
        },
        "evaluate_every_steps": 10,
        "early_stopping": {"metric": "loss", "patience": 3, "min_delta": 0.0},
        "precision": "float32",
    },
}


PLAIN = SETTINGS | {"model": {"hidden": [], "dropout": 0, "batch_norm": False, "wide": 0, "l2": 0}}


class Odd(keras.layers.Layer):
    """Wraps a function of the ids, int [n, features], to numbers [n, 1]."""

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor], **options: Any):
        super().__init__(**options)
        self._function = function

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        return self._function(ids)

    def compute_output_spec(self, ids: Any) -> Any:
        return keras.KerasTensor((ids.shape[0], 1), "float32")


def _training(settings: dict[str, Any], problem: str = "binary") -> tuple[Training, dict[str, Any]]:
    inputs = INPUTS | {"problem": problem, "num_classes": 3 if problem == "multiclass" else 1}
    return stand_in_training(inputs, settings), inputs


def _checked_with(monkeypatch: pytest.MonkeyPatch, layer: Any) -> list[Finding]:
    """The findings for the project's network with `layer` of the ids added to its result."""
    build = network.build

    def with_layer(*arguments: Any) -> keras.Model:
        model = build(*arguments)
        return keras.Model(model.input, model.output + layer(model.input["ids"]))

    monkeypatch.setattr(network, "build", with_layer)
    return check_tpu.check(*_training(PLAIN))


def _first_id(ids: tf.Tensor) -> tf.Tensor:
    return tf.cast(ids[:, :1], tf.float32)


def _looked_up(ids: tf.Tensor) -> tf.Tensor:
    start = tf.lookup.KeyValueTensorInitializer([0, 1, 2], [1.0, 2.0, 3.0], tf.int64, tf.float32)
    return tf.lookup.StaticHashTable(start, 0.0).lookup(tf.cast(ids[:, :1], tf.int64))


def _as_text(ids: tf.Tensor) -> tf.Tensor:
    buckets = tf.strings.to_hash_bucket_fast(tf.strings.as_string(ids[:, :1]), 10)
    return tf.cast(buckets, tf.float32)


@tf.function(autograph=False)
def _hidden_in_a_function(ids: tf.Tensor) -> tf.Tensor:
    chosen = tf.cond(ids[0, 0] > 0, lambda: tf.boolean_mask(ids, ids[:, 0] > 0), lambda: ids)
    return _first_id(ids) + tf.reduce_sum(_first_id(chosen))


def _unique(ids: tf.Tensor) -> tf.Tensor:
    different = tf.unique(tf.reshape(ids, [-1]))[0]
    return _first_id(ids) + tf.reduce_sum(tf.cast(different, tf.float32))


def _encoded(ids: Any) -> Any:
    size = max(f["size"] for f in INPUTS["features"] if f["size"])
    encoding = keras.layers.CategoryEncoding(size, "multi_hot", name="odd")
    return keras.layers.Dense(1)(encoding(ids))


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_own_network_is_ready_and_is_left_as_it_was(problem: str) -> None:
    training, inputs = _training(SETTINGS if problem == "binary" else PLAIN, problem)
    variables = [v for group in training.variables.values() for v in group]
    before = [variable.numpy() for variable in variables]
    assert check_tpu.check(training, inputs) == []
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_own_network_is_ready_in_half_the_bits() -> None:
    settings = PLAIN | {"training": SETTINGS["training"] | {"precision": "bfloat16"}}
    assert check_tpu.check(*_training(settings)) == []


@pytest.mark.parametrize(
    ("function", "rule", "operation"),
    [
        (_unique, "shapes", "Unique"),
        (_hidden_in_a_function, "shapes", "Where"),
        (_looked_up, "operations", "LookupTable"),
        (_as_text, "operations", "AsString"),
    ],
)
def test_graph_rules_name_layer_and_operation(
    monkeypatch: pytest.MonkeyPatch, function: Any, rule: str, operation: str
) -> None:
    found = {f.rule: f for f in _checked_with(monkeypatch, Odd(function, name="odd"))}
    assert found[rule].where == "layer odd"
    assert found[rule].problem.startswith(operation)


def test_what_is_in_no_layer_is_found_by_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(self: Head, model: Any, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        tf.print(labels)
        return self.loss(labels[:, None], logits)

    monkeypatch.setattr(Head, "losses", losses)
    findings = check_tpu.check(*_training(PLAIN))
    line = losses.__code__.co_firstlineno + 1
    assert {f.where for f in findings} == {f"tests/components/tpu/test_check.py:{line}"}


def test_lookup_layer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = keras.layers.IntegerLookup(vocabulary=[1, 2, 3], name="odd")

    def layer(ids: Any) -> Any:
        return keras.layers.Dense(1)(keras.ops.cast(lookup(ids), "float32"))

    findings = _checked_with(monkeypatch, layer)
    assert ("operations", "layer odd") in {(f.rule, f.where) for f in findings}
    assert "same result" in check_tpu.report(findings)
    assert "not tried" in check_tpu.report(findings)


def test_stateful_random_numbers_do_not_give_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = Odd(lambda ids: _first_id(ids) * tf.random.uniform([ids.shape[0], 1]), name="odd")
    [finding] = _checked_with(monkeypatch, layer)
    assert (finding.rule, finding.where) == ("same result", "layer odd")


def test_seeded_random_numbers_are_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = keras.layers.GaussianNoise(0.5, seed=1)

    def layer(ids: Any) -> Any:
        return noise(keras.ops.cast(ids[:, :1], "float32"))

    assert _checked_with(monkeypatch, layer) == []


def test_layer_that_is_compiled_for_each_batch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = _checked_with(monkeypatch, _encoded)
    assert {(f.rule, f.where) for f in findings} == {("compiled once", "layer odd")}


@pytest.mark.parametrize("replicas", [1, 8])
def test_loop_feeds_the_static_shapes_that_are_checked(replicas: int) -> None:
    training, inputs = _training(PLAIN)
    feed = training.feed
    context = tf.distribute.InputContext(1, 0, replicas)
    part = stand_in_batch(inputs, feed.batch // replicas, 0)
    specs = [tf.TensorSpec(column.shape, column.dtype) for column in part]
    assert list(feed._dataset(0, context).element_spec) == specs


def test_stand_ins_fit_the_feature_table() -> None:
    sizes = {f["name"]: f["size"] for f in INPUTS["features"]}
    assert (sizes["method"], sizes["shop"], sizes["hour"], sizes["amount"]) == (102, 9, 4, None)
    batch = stand_in_batch(INPUTS, 2000, 1)
    limits = [size for size in sizes.values() if size]
    assert np.max(batch.ids, axis=0).tolist() == [size - 1 for size in limits]
    assert np.min(batch.ids) == 0
    assert batch.weights.numpy().tolist() == [1.0] * 1999 + [0.0]


def test_report_says_that_it_is_a_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_tpu.main(TABLE, PLAIN, print) == 0
    text = capsys.readouterr().out
    assert text.count("passed") == 4
    assert "Not verified on hardware" in text
