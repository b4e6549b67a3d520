from typing import Any

import pytest

from components.evaluation.config import eval_config
from components.evaluation.results import failures
from components.evaluation.thresholds import Judgement, Threshold
from tests.components.evaluation.samples import TABLE


def overall(**metrics: float | None) -> dict[str, dict[str, float | None]]:
    return {"overall": metrics}


@pytest.mark.parametrize(
    ("limit", "kind", "own", "other", "value"),
    [
        ({"metric": "auc", "at_least": 0.8}, "champion", 0.8, 0.9, None),
        ({"metric": "auc", "at_least": 0.8}, "champion", 0.7, 0.6, 0.7),
        ({"metric": "log_loss", "at_most": 0.3}, "champion", 0.4, 0.9, 0.4),
        ({"metric": "auc", "at_least": 0.8}, "champion", None, 0.6, "unknown"),
        ({"metric": "auc", "over_champion": 0.01}, "champion", 0.92, 0.9, None),
        ({"metric": "auc", "over_champion": 0.01}, "champion", 0.9, 0.9, 0.0),
        ({"metric": "auc", "over_champion": -0.01}, "champion", 0.895, 0.9, None),
        ({"metric": "log_loss", "over_champion": -0.01}, "champion", 0.305, 0.3, None),
        ({"metric": "log_loss", "over_champion": -0.01}, "champion", 0.32, 0.3, -0.02),
        ({"metric": "log_loss", "over_champion": 0.1}, "heuristic", 0.9, 0.3, None),
        ({"metric": "auc", "over_heuristic": 0.1}, "champion", 0.9, 0.9, None),
        ({"metric": "auc", "over_heuristic": 0.0}, "heuristic", 0.898, 0.9, -0.002),
        ({"metric": "auc", "over_heuristic": -0.005}, "heuristic", 0.898, 0.9, None),
        ({"metric": "rmse", "over_heuristic": 2.0}, "heuristic", 8.0, 9.0, 1.0),
    ],
)
def test_what_a_limit_asks_for(
    limit: dict[str, Any], kind: str, own: float | None, other: float, value: Any
) -> None:
    """Margins are in the better direction, and of the baseline there is; `value`: what failed."""
    rival = {"champion": "baseline"}.get(kind, kind)
    name = limit["metric"]
    metrics = {"candidate": overall(**{name: own}), rival: overall(**{name: other})}
    found = [f["value"] for f in failures(metrics, [Threshold.model_validate(limit)], kind)]
    assert found == (
        [] if value is None else [None if value == "unknown" else pytest.approx(value)]
    )


def test_all_slices_are_computed_once() -> None:
    limits = [
        Threshold(metric="auc", at_least=0.5, slices=["shop"]),
        Threshold(metric="auc", at_least=0.5, slices=["shop", "hour"]),
    ]
    table = TABLE.model_copy(update={"slices": [["shop"], ["hour", "shop"]]})
    config = eval_config(table, Judgement(min_slice_size=7, thresholds=limits), "heuristic")
    slices = [list(spec.feature_keys) for spec in config.slicing_specs]
    assert slices == [[], ["shop"], ["hour", "shop"]]


@pytest.mark.parametrize(
    ("limits", "problem", "sentence"),
    [
        ({"metric": "auc", "at_least": 0.5}, "regression", "not one of regression: rmse, mae"),
        (
            {"metric": "auc"},
            "binary",
            "set at_least, at_most, over_champion, over_heuristic or gap",
        ),
        ({"metric": "auc", "at_least": 0.9, "at_most": 0.1}, "binary", "0.9 is above at_most 0.1"),
        ({"metric": "calibration", "over_champion": 0}, "binary", "has no better direction"),
        ({"metric": "auc", "at_least": 0.5, "slices": []}, "binary", "slices is empty"),
    ],
)
def test_a_wrong_threshold_is_named(limits: dict[str, Any], problem: str, sentence: str) -> None:
    (message,) = Threshold.model_validate(limits).mistakes(problem)
    assert sentence in message


def test_a_right_threshold_has_no_problems() -> None:
    assert not list(Threshold(metric="log_loss", over_heuristic=0.0).mistakes("binary"))
