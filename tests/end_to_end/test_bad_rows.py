"""A project with hostile files: Parquet beside CSV with a semicolon, and rows in quarantine."""

import copy
import json
import re
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests import small
from tests.end_to_end.project import Project

pytestmark = pytest.mark.prove
BAD = ["7.5,heavy,3,shop 1,card,1,1600000000,1", "too,few", "1.0,1.0,0,shop 1,card,1,1600000000,"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """1,500 rows: half in a Parquet file, half in Latin-1 with semicolons; bad ones at the end."""
    settings = copy.deepcopy(small.SETTINGS)
    settings["data"] |= {
        "pattern": "*",
        "csv": {"separator": ";", "encoding": "latin-1"},
        "bad_rows": {"action": "quarantine"},
    }
    project = Project(tmp_path_factory.mktemp("bad") / "project", settings)
    data = project.folder / "data" / "rows.csv"
    table = pyarrow.csv.read_csv(data)
    pq.write_table(table.slice(750), data.with_suffix(".parquet"))
    lines = [line.replace("shop 1,", "café,") for line in data.read_text().splitlines()[:751]]
    text = "\n".join([*lines, *BAD]) + "\n"
    data.write_bytes(text.replace(",", ";").encode("latin-1"))
    return project


def examples_of(project: Project) -> Path:
    (folder,) = project.folder.glob("workspace/pipeline_root/small/ExampleGen/examples/*")
    return folder


def test_a_run_goes_on_without_bad_rows_and_tells_of_them(project: Project) -> None:
    result = project.run()
    assert result.code == 0, result.output
    assert project.versions() == [1]
    assert "quarantined: 3 of 1,503 rows (0.20%), left out of the examples" in result.output
    assert "1 x column 'weight' is not a number (FLOAT)" in result.output
    shown = re.search(r"head (\S+)/\*\.jsonl", result.output)
    assert shown is not None
    assert (project.folder / shown[1]) == examples_of(project) / "quarantine"
    (listed,) = (examples_of(project) / "quarantine").glob("*.jsonl")
    found = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(row["line"], row["raw"]) for row in found] == [
        (752 + number, row.replace(",", ";")) for number, row in enumerate(BAD)
    ]
    (page,) = (project.folder / "workspace" / "reports").glob("small-*.html")
    assert "3 of 1,503 rows were set aside." in page.read_text()
    again = project.run()
    assert again.outcomes["ExampleGen"] == "cached"
    assert "quarantined: 3 of 1,503 rows" in again.output


def test_too_many_stop_the_run_and_their_list_stays(project: Project) -> None:
    result = project.run("--set", "data.bad_rows.at_most=0.001")
    assert result.code == 1
    assert result.outcomes["ExampleGen"] == "failed"
    assert (
        "3 of 1,503 rows are bad (0.20%), and data.bad_rows.at_most allows 0.10%" in result.output
    )
    assert "Traceback" not in result.output
    shown = re.search(r"reasons: (\S+)/\*\.jsonl", result.output)
    assert shown is not None
    (listed,) = (project.folder / shown[1]).glob("*.jsonl")
    assert len(listed.read_text().splitlines()) == 3


def test_without_a_quarantine_the_first_ones_stop_the_run(project: Project) -> None:
    result = project.run("--set", "data.bad_rows.action=fail")
    assert result.code == 1
    assert "line 752, column 'weight': 'heavy' is not a number (FLOAT)" in result.output
    assert "line 753: 2 fields, the header has 8" in result.output


def test_settings_no_file_can_be_read_with_are_told_together(project: Project) -> None:
    result = project.run(
        *("--set", "data.csv.separator=;;", "--set", "data.csv.encoding=latin-99"),
        *("--set", "data.bad_rows.action=ignore", "--set", "data.split.test=0.3"),
    )
    assert result.code == 2
    assert "has 4 mistakes" in result.output
    assert "data.csv.separator: must be one ASCII character" in result.output
    assert "did you mean 'latin9'?" in result.output
    assert "data.bad_rows.action: input should be 'fail' or 'quarantine'" in result.output
