"""From a person's CSV to version 1 with two commands."""

import json
import subprocess
import sys

import pytest

from tests import small
from tests.end_to_end.project import Project


def command(project, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=project.folder,
        env=small.environment_of_a_copy() | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
    )


@pytest.mark.prove
def test_a_table_is_adopted_and_runs_to_version_1(tmp_path):
    project = Project(tmp_path)
    data = project.folder / "data" / "my shop.csv"
    small.write_csv(data, small.rows(600, seed=1))
    text = data.read_text().replace("amount,", "net price (€),", 1).replace("bought", "class", 1)
    data.write_text(text)
    adopted = command(project, "adopt", "data/my shop.csv", "--label", "class")
    run = command(project, "run", "--config", "my-shop")
    version = project.folder / "workspace" / "registry" / "my-shop" / "1"
    again = command(project, "adopt", "data/my shop.csv", "--label", "class")

    assert adopted.returncode == 0, adopted.stderr
    assert "leak: alone reaches AUC" in adopted.stdout
    assert "make run-local CONFIG=my-shop" in adopted.stdout
    assert run.returncode == 0, run.stdout
    assert "filed as version 1" in run.stdout
    signature = json.loads((version / "manifest.json").read_text())["signature"]
    inputs = json.dumps(signature["inputs"], ensure_ascii=False)
    assert "net price (€)" in inputs
    assert "leak" not in inputs
    assert again.returncode == 2
    assert "nothing is overwritten" in again.stderr
