"""Which problem a label stands for."""

import pyarrow as pa
import pytest

from components.errors import PipelineStop
from pipeline.adopt import problem, profiling


def label(values):
    return profiling.profile(pa.table({"label": values}))[0]


@pytest.mark.parametrize(
    ("values", "expected", "classes"),
    [
        ([0, 1] * 20, "binary", None),
        ([0.0, 1.0] * 20, "binary", None),
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
    target = problem.decide(label(values), None)

    assert (target.problem, target.classes) == (expected, classes)
    assert target.why


def test_a_person_overrules_what_integers_mean():
    grades = label([3, 4, 5, 6] * 20)

    assert problem.decide(grades, "multiclass").classes == (3, 4, 5, 6)
    assert problem.decide(label([0, 1, 2] * 20), "regression").problem == "regression"


def test_integers_that_could_be_either_name_the_option():
    assert "--problem regression" in problem.decide(label([1, 2, 3] * 20), None).why
    assert "--problem multiclass" in problem.decide(label([3, 4, 5] * 20), None).why


def test_rare_classes_are_told():
    target = problem.decide(label(["a"] * 50 + ["b"] * 50 + ["c"] * 3), None)

    assert target.notes == ("1 class has fewer than 10 rows: c (3)",)


@pytest.mark.parametrize(
    ("values", "wanted", "words"),
    [
        (["a", "b", "c"] * 9, "regression", "needs numbers"),
        (["a", "b", "c"] * 9, "binary", "3 different values"),
        ([f"text {n}" for n in range(150)], None, "more than 100"),
        ([0, 1] * 9, "multiclass", "at least three"),
        ([0.5, 1.5, 2.5] * 9, "multiclass", "--problem regression"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(values, wanted, words):
    with pytest.raises(PipelineStop, match=words):
        problem.decide(label(values), wanted)
