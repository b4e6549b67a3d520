"""What the network learns and answers for the book's patterns on problems and inputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core.data import InMemory, Layout, Rows, by_kind, described
from components.trainer.core.heads import Distribution, head_of
from components.trainer.core.loop import Training, build_model
from tests.components.trainer import small_training as small

PLAIN = {"dropout": 0.0, "batch_norm": False, "l2": 0}


def trained(rows: Rows, inputs: dict, model: dict, **training: object) -> Training:
    made = Training(InMemory(rows), InMemory(rows), inputs, small.settings(model, **training))
    made.run(lambda _: None)
    return made


def answers(made: Training, rows: Rows) -> np.ndarray:
    given = by_kind(rows.numbers, rows.ids, made.features)
    return made.head.predict(made.model, made.model(given, training=False)).numpy()


def test_a_distribution_covers_as_much_as_its_quantiles_say() -> None:
    chance = np.random.default_rng(0)
    rows = small.columns(4_000, "regression")
    spread = 20 * np.abs(rows.numbers[:, 1].numpy())  # `y` says how sure one can be
    x = rows.numbers[:, 0].numpy()
    labels = 1000 + 50 * x + spread * chance.normal(size=4_000)
    rows = rows._replace(labels=tf.constant(labels, tf.float32))
    made = trained(rows, small.inputs("regression"), PLAIN | {"buckets": 30}, epochs=15)
    assert isinstance(made.head, Distribution)
    found = made.head.distribution(
        made.model, made.model(by_kind(rows.numbers, rows.ids, made.features))
    )
    low, high = found["quantiles"][:, 0].numpy(), found["quantiles"][:, -1].numpy()
    assert np.mean((labels >= low) & (labels <= high)) == pytest.approx(0.9, abs=0.03)
    wide = np.abs(rows.numbers[:, 1]) > 1
    assert (high - low)[wide].mean() > 1.2 * (high - low)[~wide].mean()
    np.testing.assert_allclose(found["probabilities"].numpy().sum(1), 1, rtol=1e-5)
    error = answers(made, rows)[:, 0] - labels
    assert np.sqrt(np.mean(error**2)) < 0.8 * labels.std()


def test_each_of_several_labels_is_learned_by_itself() -> None:
    rows = small.columns(2_000)
    both = np.stack([rows.numbers[:, 0] > 0, rows.numbers[:, 1] > 0.5], 1).astype(np.float32)
    inputs = small.INPUTS | {"problem": "multilabel", "num_classes": 2}
    rows = rows._replace(labels=tf.constant(both))
    layout = Layout.of(inputs)
    packed = tf.constant(layout.pack(rows).numpy().tobytes())
    np.testing.assert_array_equal(layout.unpack(packed).labels, both)
    made = trained(rows, inputs, PLAIN, epochs=8)
    right = ((answers(made, rows) > 0.5) == both).mean(0)
    assert (right > 0.95).all(), right


@pytest.mark.parametrize(
    "rebalance",
    [
        {"weights": "balanced"},
        {"weights": [1.0, 5.0], "initial_bias": True},
        {"keep": [0.25, 1.0]},
    ],
)
def test_rare_classes_may_count_more_and_probabilities_stay_those_of_the_data(
    rebalance: dict,
) -> None:
    chance = np.random.default_rng(1)
    rows = small.columns(6_000)
    odds = 1 / (1 + np.exp(-(2 * rows.numbers[:, 0].numpy() - 3)))
    rows = rows._replace(labels=tf.constant(chance.random(6_000) < odds, tf.float32))
    kept = rows
    if "keep" in rebalance:
        drawn = (chance.random(6_000) < 0.25) | (rows.labels.numpy() == 1)
        kept = rows.take(tf.where(drawn)[:, 0])
    made = trained(kept, small.INPUTS, PLAIN | {"hidden": []}, epochs=10, rebalance=rebalance)
    assert answers(made, rows).mean() == pytest.approx(float(odds.mean()), abs=0.02)


def test_words_and_pixels_are_read_beside_numbers() -> None:
    chance = np.random.default_rng(2)
    features = [
        {"name": "x", "size": None},
        {"name": "picture", "size": None, "pixels": [4, 4, 1], "filters": [4]},
        {"name": "words", "size": 9, "embed": 4, "tokens": 3},
    ]
    inputs = small.INPUTS | {"features": features}
    pixels = chance.random([1_500, 16], np.float32)
    tokens = chance.integers(0, 9, [1_500, 3])
    numbers = np.hstack([chance.normal(size=[1_500, 1]), pixels]).astype(np.float32)
    is_bright, is_named = pixels[:, :8].mean(1) > 0.5, (tokens == 4).any(1)
    rows = Rows(
        tf.constant(numbers),
        tf.constant(tokens, tf.int32),
        tf.constant(is_bright & is_named | (numbers[:, 0] > 1), tf.float32),
    )
    made = trained(rows, inputs, PLAIN | {"wide": False}, epochs=40)
    assert ((answers(made, rows)[:, 0] > 0.5) == rows.labels.numpy()).mean() > 0.9
    assert [*made.model.input] == ["numbers", "ids", "pixels", "tokens"]


def test_pretrained_layers_learn_at_their_own_rate_or_not_at_all(tmp_path) -> None:
    layers = keras.Sequential([keras.Input([4, 4, 1]), keras.layers.Conv2D(3, 3)])
    layers.save(tmp_path / "layers.keras")
    rows = Rows(
        tf.random.stateless_uniform([200, 16], [0, 0]),
        tf.zeros([200, 0], tf.int32),
        tf.cast(tf.range(200) % 2, tf.float32),
    )

    def moved(**source: object) -> float:
        pretrained = {"file": str(tmp_path / "layers.keras"), "learning_rate": 1.0, **source}
        picture = {"name": "p", "size": None, "pixels": [4, 4, 1], "pretrained": pretrained}
        made = trained(
            rows, small.INPUTS | {"features": [picture]}, PLAIN | {"wide": False}, epochs=2
        )
        now = made.model.get_layer("pretrained_p").get_weights()[0]
        return float(np.abs(now - layers.get_weights()[0]).max())

    assert moved(freeze=True) == 0
    slow, fast = moved(freeze=False, learning_rate=0.01), moved(freeze=False)
    assert 0 < slow < 0.05 * fast


def test_a_head_fits_its_problem_and_a_model_without_labels_can_be_filled_from_a_checkpoint() -> (
    None
):
    assert [type(head_of(p, n)).__name__ for p, n in (("regression", 1), ("regression", 9))] == [
        "Regression",
        "Distribution",
    ]
    settings = small.settings(PLAIN | {"buckets": 9})
    one, other = (
        build_model(small.inputs("regression"), settings, label)
        for label in (described(np.arange(100.0)), None)
    )
    assert [v.shape for v in one.variables] == [v.shape for v in other.variables]
