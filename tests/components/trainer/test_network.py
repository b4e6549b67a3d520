"""The network: what its linear part sees."""

import numpy as np
import pytest

from components.trainer.core import model

NUMBERS = [{"name": "amount", "size": None}, {"name": "weight", "size": None}]
IDS = [{"name": "shop", "size": 3, "embed": None}, {"name": "hour", "size": 4, "embed": 2}]


def network(features, wide=True):
    settings = {"hidden": [4], "dropout": 0.0, "batch_norm": False, "l2": 0.0, "members": 1}
    settings |= {"wide": wide, "buckets": None}
    return model.build({"features": features, "num_classes": 0}, settings, 0)


def logits(built, numbers, ids):
    return built({"numbers": np.float32(numbers), "ids": np.int32(ids)}).numpy()


@pytest.mark.parametrize(
    ("features", "numbers", "ids", "expected"),
    [
        (NUMBERS, [[2.0, 3.0]], np.zeros([1, 0]), 2 * 10 + 3 * 100),
        (NUMBERS + IDS, [[2.0, 3.0]], [[1, 2]], 2 * 10 + 3 * 100 + 1 + 5),
        (IDS, np.zeros([1, 0]), [[1, 2]], 1 + 5),
    ],
)
def test_the_linear_part_adds_a_weight_for_each_number_and_each_id(
    features, numbers, ids, expected
):
    built = network(features)
    before = logits(built, numbers, ids)
    if features != IDS:
        built.get_layer("linear").kernel.assign([[10.0], [100.0]])
    if features != NUMBERS:
        built.get_layer("wide").embeddings.assign(np.arange(7.0)[:, None])

    np.testing.assert_allclose(logits(built, numbers, ids) - before, expected, rtol=1e-6)


def test_without_wide_there_is_no_linear_part():
    names = {layer.name for layer in network(NUMBERS + IDS, wide=False).layers}

    assert {"linear", "wide"}.isdisjoint(names)
