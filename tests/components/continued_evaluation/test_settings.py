"""Contradictions in the settings, all at once."""

import pytest

from components.errors import PipelineStop
from pipeline import loading
from tests import small


def test_every_mistake_is_told_with_its_place(tmp_path) -> None:
    settings = {
        "limits": [
            {"metric": "rmse", "at_most": 1},
            {"metric": "auc"},
            {"metric": "calibration", "below_promotion": 0.1},
            {"metric": "auc", "gap": 0.1},
            {"metric": "auc", "at_least": 0.5, "slices": ["shop"]},
            {"metric": "accuracy", "gap": 0.2, "slices": ["method"]},
        ],
        "drift_from_before": {"columns": {"leak": 0.1}, "ignore": {"nowhere": "why"}},
        "drift_from_training": {"columns": {"bought": 0.1, "amount": 0.4}},
    }
    small.write_config(tmp_path, {**small.SETTINGS, "continued_evaluation": settings})
    with pytest.raises(PipelineStop) as stop:
        loading.load("small", configs=tmp_path)
    told = str(stop.value)
    assert "7 mistakes" in told
    for words in (
        "limits.0: metric 'rmse' is not one of binary",
        "limits.1: set at_least, at_most, below_promotion or gap",
        "limits.2: calibration has no better direction",
        "limits.3: gap is between slices",
        "limits.4: slices ['shop'] is not among features.slices: ['method']",
        "drift_from_before.columns.leak: is neither the label nor read by the model",
        "drift_from_before.ignore.nowhere: is neither",
    ):
        assert words in told, words
