from typing import Any

import pytest
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.config import Judgement, eval_config, metric_threshold
from components.evaluation.thresholds import Threshold, metric_problems
from tests.components.evaluation.samples import MOODS, TABLE

HIGHER = config_pb2.MetricDirection.HIGHER_IS_BETTER
LOWER = config_pb2.MetricDirection.LOWER_IS_BETTER


@pytest.mark.parametrize(
    ("limits", "baseline", "direction", "absolute"),
    [
        ({"metric": "auc", "over_champion": 0.01}, "champion", HIGHER, 0.01),
        ({"metric": "auc", "over_champion": -0.01}, "champion", HIGHER, -0.01),
        ({"metric": "log_loss", "over_champion": 0.01}, "champion", LOWER, -0.01),
        ({"metric": "log_loss", "over_champion": -0.01}, "champion", LOWER, 0.01),
        ({"metric": "rmse", "over_heuristic": 2.0}, "heuristic", LOWER, -2.0),
        ({"metric": "auc", "over_heuristic": 0.0}, "heuristic", HIGHER, 0.0),
    ],
)
def test_margins_are_in_the_better_direction(
    limits: dict[str, Any], baseline: str, direction: int, absolute: float
) -> None:
    threshold = metric_threshold(Threshold.model_validate(limits), baseline)
    assert threshold is not None
    assert threshold.change_threshold.direction == direction
    assert threshold.change_threshold.absolute.value == absolute
    assert not threshold.HasField("value_threshold")


@pytest.mark.parametrize(
    ("margin", "baseline"), [("over_champion", "heuristic"), ("over_heuristic", "champion")]
)
def test_a_margin_over_the_other_kind_of_baseline_says_nothing(margin: str, baseline: str) -> None:
    assert metric_threshold(Threshold(metric="auc", **{margin: 0.1}), baseline) is None


def test_bounds_are_kept_whatever_the_baseline() -> None:
    threshold = metric_threshold(Threshold(metric="auc", at_least=0.5, at_most=0.9), "champion")
    assert threshold is not None
    bounds = threshold.value_threshold
    assert (bounds.lower_bound.value, bounds.upper_bound.value) == (0.5, 0.9)


def test_all_slices_are_computed_once() -> None:
    limits = [
        Threshold(metric="auc", at_least=0.5, slices=["shop"]),
        Threshold(metric="auc", at_least=0.5, slices=["shop", "hour"]),
    ]
    table = TABLE.model_copy(update={"slices": [["shop"], ["hour", "shop"]]})
    config = eval_config(table, Judgement(min_slice_size=7, thresholds=limits), "heuristic")
    slices = [list(spec.feature_keys) for spec in config.slicing_specs]
    assert slices == [[], ["shop"], ["hour", "shop"]]


def test_the_heuristic_is_shown_beside_a_champion_and_is_the_baseline_without() -> None:
    judgement = Judgement(min_slice_size=1, thresholds=[])
    names = {
        kind: [list(spec.model_names) for spec in eval_config(TABLE, judgement, kind).metrics_specs]
        for kind in ("champion", "heuristic")
    }
    assert names == {
        "champion": [["candidate", "baseline"], ["heuristic"]],
        "heuristic": [["candidate", "baseline"]],
    }


def test_named_classes_are_compared_by_index() -> None:
    table = TABLE.model_validate(
        {**TABLE.model_dump(), "problem": "multiclass", "label": MOODS, "exclude": {}}
    )
    config = eval_config(table, Judgement(min_slice_size=1, thresholds=[]), "heuristic")
    assert {spec.label_key for spec in config.model_specs} == {"label_index"}


@pytest.mark.parametrize(
    ("limits", "problem", "sentence"),
    [
        ({"metric": "auc", "at_least": 0.5}, "regression", "not one of regression: rmse, mae"),
        ({"metric": "auc"}, "binary", "set at_least, at_most, over_champion or over_heuristic"),
        ({"metric": "auc", "at_least": 0.9, "at_most": 0.1}, "binary", "0.9 is above at_most 0.1"),
        ({"metric": "calibration", "over_champion": 0}, "binary", "has no better direction"),
        ({"metric": "auc", "at_least": 0.5, "slices": []}, "binary", "slices is empty"),
    ],
)
def test_a_wrong_threshold_is_named(limits: dict[str, Any], problem: str, sentence: str) -> None:
    (message,) = metric_problems(Threshold.model_validate(limits), problem)
    assert sentence in message


def test_a_right_threshold_has_no_problems() -> None:
    assert not list(metric_problems(Threshold(metric="log_loss", over_heuristic=0.0), "binary"))
