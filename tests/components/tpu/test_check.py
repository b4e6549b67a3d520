"""Readiness for a TPU, as far as a CPU can tell."""

import copy
from collections.abc import Callable
from typing import Any

import keras
import pytest
import tensorflow as tf

from components.errors import PipelineStop
from components.features.table import FeatureTable
from components.tpu.check import check
from components.trainer.core import model as network
from tests.components.trainer import small_training
from tests.small import SETTINGS as SMALL

TABLE = FeatureTable.model_validate(SMALL["features"])
PLAIN = {"hidden": [], "dropout": 0, "batch_norm": False, "wide": False, "l2": 0}


class Odd(keras.layers.Layer):
    """Adds a function of the ids, int [n, features], to the logits [n, 1]."""

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor]):
        super().__init__(name="odd")
        self._function = function

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        return self._function(ids)

    def compute_output_spec(self, ids: Any) -> Any:
        return keras.KerasTensor((ids.shape[0], 1), "float32")


def _looked_up(ids: tf.Tensor) -> tf.Tensor:
    start = tf.lookup.KeyValueTensorInitializer([0, 1, 2], [1.0, 2.0, 3.0], tf.int64, tf.float32)
    return tf.lookup.StaticHashTable(start, 0.0).lookup(tf.cast(ids[:, :1], tf.int64))


def _different(ids: tf.Tensor) -> tf.Tensor:
    different = tf.unique(tf.reshape(ids, [-1]))[0]
    return tf.cast(ids[:, :1], tf.float32) + tf.reduce_sum(tf.cast(different, tf.float32))


@pytest.mark.parametrize(
    ("precision", "model", "scale"),
    [
        ("bfloat16", {"members": 4}, "quantile"),
        pytest.param("float32", {}, "standard", marks=pytest.mark.prove),
    ],
)
def test_own_network_is_ready(precision: str, model: dict[str, Any], scale: str) -> None:
    early = {"metric": "loss", "patience": 3}
    features = copy.deepcopy(SMALL["features"])
    features["columns"]["amount"] |= {"scale": scale, "missing": "own"}
    table = FeatureTable.model_validate(features)
    check(table, small_training.settings(model, precision=precision, early_stopping=early))


@pytest.mark.parametrize(
    ("function", "words"),
    [(_looked_up, "LookupTable"), (_different, "shapes known only when it runs: Unique")],
)
def test_what_no_tpu_can_do_is_named(
    monkeypatch: pytest.MonkeyPatch, function: Any, words: str
) -> None:
    build = network.build

    def with_layer(*arguments: Any) -> keras.Model:
        model = build(*arguments)
        return keras.Model(model.input, model.output + Odd(function)(model.input["ids"]))

    monkeypatch.setattr(network, "build", with_layer)
    with pytest.raises(PipelineStop, match=rf"(?s)the training step cannot run on a TPU.*{words}"):
        check(TABLE, small_training.settings(PLAIN))
