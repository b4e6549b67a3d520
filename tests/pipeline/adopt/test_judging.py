"""What the label asks for, and what a column alone tells of it."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from components.errors import PipelineStop
from pipeline.adopt import judging
from pipeline.adopt.table import profile

chance = np.random.default_rng(0)
N = 1_000
BINARY = chance.integers(0, 2, N)
CLASSES = chance.choice(["a", "b", "c"], N)
NUMBER = chance.lognormal(3, 1, N)
OTHERS = chance.normal(size=(4, N))


def label(values):
    return profile(pa.table({"label": values}))["label"]


def target(values, wanted=None):
    return judging.target(label(values), pa.chunked_array([values]), wanted)


@pytest.mark.parametrize(
    ("values", "expected", "classes"),
    [
        ([0, 1] * 20, "binary", (0, 1)),
        ([0.0, 1.0] * 20, "binary", (0, 1)),
        ([1, 2] * 20, "binary", (1, 2)),
        ([1.0, 2.0, 2.0] * 20, "binary", (2, 1)),
        ([0.5, 1.5, 1.5] * 20, "binary", (1.5, 0.5)),
        (["yes", "no"] * 20, "binary", ("no", "yes")),
        (["True", "False", "False"] * 20, "binary", ("False", "True")),
        (["Y", "N"] * 20, "binary", ("N", "Y")),
        (["alive", "dead", "alive"] * 20, "binary", ("alive", "dead")),
        (["b", "a", "c"] * 20, "multiclass", ("a", "b", "c")),
        ([0, 1, 2] * 20, "multiclass", (0, 1, 2)),
        ([1, 2, 3, 4, 5] * 20, "multiclass", (1, 2, 3, 4, 5)),
        ([0.0, 1.0, 2.0] * 20, "multiclass", (0, 1, 2)),
        ([3, 4, 5, 6] * 20, "regression", None),
        ([0, 10, 20] * 20, "regression", None),
        ([0.1, 0.2, 0.3] * 20, "regression", None),
        (list(range(50)), "regression", None),
        ([0] * 300 + [1] * 100 + [2] * 20 + [3], "regression", None),
    ],
)
def test_problem_and_classes_follow_from_the_label(values, expected, classes):
    found = target(values)
    assert (found.problem, found.classes) == (expected, classes or ())
    assert found.why


@pytest.mark.parametrize(
    ("values", "separator", "classes"),
    [
        (["a|b", "b", "a", "|", "c|a|b"] * 10, "|", ("a", "b", "c")),
        (["a; b", "b", "a; c", "c"] * 10, ";", ("a", "b", "c")),
        (["a", "b", "c"] * 10, "", ("a", "b", "c")),
        ([f"word {n}, word {n % 90}" for n in range(90)], "", None),
    ],
)
def test_a_label_that_lists_classes_is_one_of_several_labels(values, separator, classes):
    found = target(values)
    assert found.problem == ("multilabel" if separator else "multiclass")
    assert found.separator == separator
    assert classes in (None, found.classes)


def test_a_person_overrules_what_integers_mean_and_is_told_how():
    grades, ranks = [3, 4, 5, 6] * 20, [1, 2, 3] * 20
    assert target(grades, "multiclass").classes == (3, 4, 5, 6)
    assert target(ranks, "regression").problem == "regression"
    assert "--problem regression" in target(ranks).why
    assert "--problem multiclass" in target(grades).why


def test_rare_classes_are_told():
    assert target(["a"] * 50 + ["b"] * 50 + ["c"] * 3).rare == "c (3)"


@pytest.mark.parametrize(
    ("values", "wanted", "words"),
    [
        (["a", "b", "c"] * 9, "regression", "needs numbers"),
        (["a", "b", "c"] * 9, "binary", "3 different values"),
        ([f"text {n}" for n in range(150)], None, "more than 100"),
        ([0, 1] * 9, "multiclass", "at least three"),
        ([0.5, 1.5, 2.5] * 9, "multiclass", "--problem regression"),
        (["a", "b", "c"] * 9, "multilabel", "as in 'red|green'"),
        ([1, 2, 3] * 9, "multilabel", "as in 'red|green'"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(values, wanted, words):
    with pytest.raises(PipelineStop, match=re.escape(words)):
        target(values, wanted)


def certain(values, label, problem):
    classes = pd.Series(label if problem == "regression" else pd.factorize(label, sort=True)[0])
    return judging.scores(pd.DataFrame({"x": values}), classes, problem).certain["x"]


@pytest.mark.parametrize(
    ("values", "label", "problem"),
    [
        (BINARY * 2.5, BINARY, "binary"),
        (-BINARY + chance.normal(0, 0.1, N), BINARY, "binary"),
        (np.where(BINARY, "paid", "open").astype(object), BINARY, "binary"),
        (np.where(BINARY, np.nan, 1.0), BINARY, "binary"),
        (np.where(BINARY, chance.lognormal(0, 1, N), 0), BINARY, "binary"),
        (np.char.upper(CLASSES).astype(object), CLASSES, "multiclass"),
        (NUMBER * 100 + 3, NUMBER, "regression"),
        (np.log(NUMBER), NUMBER, "regression"),
        (1 / NUMBER, NUMBER, "regression"),
    ],
)
def test_a_column_that_gives_the_label_away_is_a_leak(values, label, problem):
    assert certain(values, label, problem) > judging.LEAK


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
    noisy = np.where(np.arange(40) < 2, 1 - label, label)
    assert certain(label * 1.0, label, "binary") > judging.LEAK
    assert certain(noisy * 1.0, label, "binary") < 0.93


@pytest.mark.parametrize(
    ("columns", "label", "expected"),
    [
        ({"a": OTHERS[0], "b": OTHERS[1], "t": OTHERS[2]}, OTHERS[0] + 3 * OTHERS[1], {"a", "b"}),
        ({"t": OTHERS[2], "got": NUMBER, "cost": NUMBER - OTHERS[0]}, OTHERS[0], {"got", "cost"}),
        ({"a": OTHERS[0], "b": OTHERS[1]}, OTHERS[0] + OTHERS[1] + OTHERS[2] / 2, set()),
        ({"a": OTHERS[0], "b": np.ones(N)}, OTHERS[1], set()),
    ],
)  # fmt: skip
def test_numbers_that_sum_to_the_label_are_found(columns, label, expected):
    assert {*judging.summands(pd.DataFrame(columns), pd.Series(label))} == expected


@pytest.mark.parametrize("values", [[0, 1] * 200, [0] * 388 + [1] * 12])
def test_a_rule_that_is_better_by_chance_does_not_keep_a_model_out(values):
    margins = judging.margins(label(values), "binary", 400, 0)
    errors = 0.5 / np.sqrt(3 * min(values.count(0), values.count(1)))
    assert margins["auc"] > errors * 0.3
    assert 0 < margins["log_loss"] < 0.03


def test_limits_are_in_the_labels_unit():
    few, many = (judging.margins(label(NUMBER), "regression", n, 10) for n in (400, 40_000))
    assert (few, many) == (pytest.approx({"rmse": 0.15}), pytest.approx({"rmse": 0.02}))
