"""Rows from the command line, predicted in one process, without a server."""

import json

import pytest

from components.inference.columns import from_rows
from components.inference.model import LoadedVersion, choose
from tests.end_to_end.project import Project, Result

ROW = {"amount": 12.5, "weight": 0.3, "hour": 14, "shop": "shop 3", "method": "card"}


@pytest.fixture(scope="module")
def project(lived: tuple[Project, Result]) -> Project:
    """A project after its first run, which these tests only read."""
    lived[0].restore()
    return lived[0]


def test_predict_prints_what_the_model_says_and_nothing_else(project: Project) -> None:
    loaded = LoadedVersion(choose(str(project.registry)))
    expected = loaded.predict(from_rows(loaded.signature, [ROW]))
    answer = json.loads(project.call("predict", json.dumps(ROW)).output)
    assert (answer["model"], answer["version"]) == ("small", 1)
    assert answer["predictions"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{amount: 1}", "That is not JSON"),
        ('{"amount": "much", "hour": 1}', "row 0: 'amount' must be a number, got 'much'"),
        ('{"amount": 1}', "row 0: 'hour' is required (an integer)"),
    ],
)
def test_a_row_that_cannot_be_predicted(project: Project, text: str, message: str) -> None:
    result = project.call("predict", text)
    assert result.code == 2
    assert message in result.output
    assert "Traceback" not in result.output
