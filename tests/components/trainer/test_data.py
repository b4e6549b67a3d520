"""Loading transformed examples: every row, in an order that no file decides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core.data import load

INPUTS: dict[str, Any] = {
    "problem": "binary",
    "label": "__label__",
    "features": [{"name": "x", "size": None}, {"name": "a", "size": 9, "embed": None}],
}


def _write(path: Path, numbers: list[int]) -> None:
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for number in numbers:
            feature = {
                "x": tf.train.Feature(float_list=tf.train.FloatList(value=[number / 7])),
                "a": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 9])),
                "__label__": tf.train.Feature(float_list=tf.train.FloatList(value=[number % 2])),
            }
            features = tf.train.Features(feature=feature)
            writer.write(tf.train.Example(features=features).SerializeToString())


def test_order_does_not_depend_on_the_files(tmp_path: Path) -> None:
    numbers = list(range(1000))
    _write(tmp_path / "a-0.gz", numbers)
    shuffled = np.random.default_rng(1).permutation(numbers).tolist()
    for shard in range(3):
        _write(tmp_path / f"b-{shard}.gz", shuffled[shard::3])
    one, many = (load([str(tmp_path / f"{name}-*")], INPUTS) for name in "ab")
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(np.round(one.numbers[:, 0] * 7).astype(int).tolist()) == numbers
    np.testing.assert_array_equal(one.ids[:, 0], np.round(one.numbers[:, 0] * 7).astype(int) % 9)


def test_no_examples_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No examples in"):
        load([str(tmp_path / "none-*")], INPUTS)
