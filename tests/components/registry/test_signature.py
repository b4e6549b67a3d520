from typing import Any

import pytest

from components.errors import PipelineStop
from components.registry import signature
from tests.components.evaluation import samples

NOW: dict[str, Any] = {
    "inputs": {
        "fare": {"type": "FLOAT", "required": False},
        "hour": {"type": "INT", "required": True},
    },
    "ignored": ["tips"],
    "problem": "binary",
    "classes": None,
}


def test_what_a_table_and_a_schema_say() -> None:
    table = samples.TABLE.model_copy(
        update={
            "columns": {
                **samples.TABLE.columns,
                "hour": samples.TABLE.columns["hour"].model_copy(update={"missing": "error"}),
            }
        }
    )
    assert signature.describe(table, samples.TYPES) == {
        "inputs": {
            "hour": {"type": "INT", "required": True},
            "score": {"type": "FLOAT", "required": False},
            "shop": {"type": "BYTES", "required": False},
        },
        "ignored": ["bought", "mood"],
        "problem": "binary",
        "classes": None,
    }


@pytest.mark.parametrize(
    ("inputs", "problems"),
    [
        ({}, []),
        ({"tolls": {"type": "INT", "required": False}}, []),
        (
            {"tolls": {"type": "INT", "required": True}},
            ["column 'tolls' is required, and callers do not send it"],
        ),
        (
            {"fare": {"type": "FLOAT", "required": True}},
            ["column 'fare' is required, and callers may leave it out"],
        ),
        (
            {"fare": {"type": "INT", "required": True}},
            ["column 'fare' is INT, and callers send FLOAT"],
        ),
        ({"hour": {"type": "INT", "required": False}}, []),
    ],
)
def test_inputs_that_break_callers(inputs: dict[str, Any], problems: list[str]) -> None:
    new = {**NOW, "inputs": {**NOW["inputs"], **inputs}}
    assert signature.breaks(NOW, new) == problems


def test_a_column_that_is_read_no_more_breaks_nobody() -> None:
    assert signature.breaks(NOW, {**NOW, "inputs": {}}) == []


def test_predictions_that_mean_something_else_break_callers() -> None:
    several = {**NOW, "problem": "multiclass", "classes": ["a", "b", "c"]}
    assert signature.breaks(NOW, several) == ["predictions are multiclass, and callers read binary"]
    (problem,) = signature.breaks(several, {**several, "classes": ["c", "b", "a"]})
    assert "the classes are ['c', 'b', 'a']" in problem


def test_a_manifest_from_before_there_were_signatures() -> None:
    with pytest.raises(PipelineStop, match="Version 4 has no signature"):
        signature.of({"version": 4})
