"""What one column alone tells of the label."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.adopt import columns, scores

chance = np.random.default_rng(0)
N = 1_000
BINARY = chance.integers(0, 2, N)
CLASSES = chance.choice(["a", "b", "c"], N)
NUMBER = chance.lognormal(3, 1, N)


def certain(values, label, problem):
    wanted = scores.targets(pa.array(label), problem)
    return scores.score(pa.array(values, from_pandas=True), wanted, problem).certain


@pytest.mark.parametrize(
    ("values", "label", "problem"),
    [
        (BINARY * 2.5, BINARY, "binary"),
        (-BINARY + chance.normal(0, 0.1, N), BINARY, "binary"),
        (np.where(BINARY, "paid", "open").astype(object), BINARY, "binary"),
        (np.where(BINARY, np.nan, 1.0), BINARY, "binary"),
        (np.char.upper(CLASSES).astype(object), CLASSES, "multiclass"),
        (NUMBER * 100 + 3, NUMBER, "regression"),
        (np.log(NUMBER), NUMBER, "regression"),
        (1 / NUMBER, NUMBER, "regression"),
    ],
)
def test_a_column_that_gives_the_label_away_is_a_leak(values, label, problem):
    assert certain(values, label, problem) > columns.LEAK


@pytest.mark.parametrize(
    ("values", "label", "problem"),
    [
        (chance.normal(size=N), BINARY, "binary"),
        (np.where(chance.random(N) < 0.9, BINARY, 1 - BINARY), BINARY, "binary"),
        (chance.choice([f"c{n}" for n in range(300)], N).astype(object), BINARY, "binary"),
        (np.arange(N).astype(str).astype(object), BINARY, "binary"),
        (np.where(chance.random(N) < 0.8, CLASSES, "a").astype(object), CLASSES, "multiclass"),
        (NUMBER + chance.normal(0, NUMBER.std() / 2, N), NUMBER, "regression"),
        (np.ones(N), NUMBER, "regression"),
        (np.full(N, np.nan), NUMBER, "regression"),
    ],
)
def test_a_useful_column_is_no_leak(values, label, problem):
    assert certain(values, label, problem) < 0.93


def test_few_rows_make_no_leak_certain():
    label = np.array([0, 1] * 20)
    score = scores.score(pa.array(label), scores.targets(pa.array(label), "binary"), "binary")
    noisy = label.copy()
    noisy[:2] = 1 - noisy[:2]
    doubted = scores.score(pa.array(noisy), scores.targets(pa.array(label), "binary"), "binary")

    assert score.certain == pytest.approx(1.0)
    assert doubted.certain < doubted.value - 0.03


def test_auc_is_scikit_learns():
    predicted = np.round(chance.normal(size=N) + BINARY, 1)

    assert scores._auc(BINARY.astype(float), predicted) == pytest.approx(
        roc_auc_score(BINARY, predicted)
    )
