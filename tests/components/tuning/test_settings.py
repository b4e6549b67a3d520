"""The search space: every contradiction is named, and what suits the settings is accepted."""

import copy
from pathlib import Path
from typing import Any

import pytest

from components.errors import PipelineStop
from pipeline import loading
from tests import small


def _load(folder: Path, search: Any, **tuning: Any) -> Any:
    small.write_config(folder, copy.deepcopy(small.SETTINGS), "base")
    changes = {"extends": "base", "tuning": {"trials": 3, "search": search, **tuning}}
    small.write_config(folder, changes, "variant")
    return loading.load("variant", (), folder)


RATE = "training.learning_rate.initial"
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"model.droput": {"min": 0, "max": 0.4}}, "unknown setting; did you mean 'model.dropout'?"),
    ({"training.seed": {"choices": [1, 2]}}, "is the same for all trials"),
    ({"model.dropout": {"min": 0.4, "max": 0.4}}, "dropout.min: 0.4 must be below 'max'"),
    ({"model.l2": {"min": 0, "max": 0.1, "log": True}}, "0 must be above 0 with 'log: true'"),
    ({"model.dropout": {"choices": [0.1], "max": 0.2}}, "either 'choices', or 'min' and 'max'"),
    ({"model.hidden": {"choices": [[8], [-8]]}}, "[-8] does not suit it: input should be greater"),
    ({"training.steps": {"choices": [50]}}, "50 does not suit it: steps set either 'epochs' or"),
    ({}, "search: dictionary should have at least 1 item"),
]


@pytest.mark.parametrize(("search", "words"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_mistake_is_named_with_what_to_do(
    tmp_path: Path, search: dict[str, Any], words: str
) -> None:
    with pytest.raises(PipelineStop) as stop:
        _load(tmp_path, search)
    assert words in str(stop.value)
    assert "variant.yaml:" in str(stop.value)


@pytest.mark.parametrize(
    "search",
    [
        {RATE: {"min": 0.0005, "max": 0.01, "log": True}},
        {"model.hidden": {"choices": [[64, 32], [128], []]}, "model.wide": {"choices": [False]}},
        {"training.global_batch_size": {"min": 16, "max": 64, "integer": True, "log": True}},
    ],
)
def test_search_that_suits_is_accepted(tmp_path: Path, search: dict[str, Any]) -> None:
    assert set(_load(tmp_path, search, algorithm="bayesian").tuning.search) == set(search)


def test_variant_takes_a_setting_out_of_the_search_and_it_is_off_by_default(tmp_path: Path) -> None:
    search = {"model.hidden": {"choices": [[8]]}, "model.dropout": None}
    assert set(_load(tmp_path, search).tuning.search) == {"model.hidden"}
    assert loading.load("taxi").tuning is None
