"""The repository as a Copier template: a project is made from it, and takes in a later fix."""

import sys
from pathlib import Path

import pytest

from tests import clones, small

pytest.importorskip("copier")
pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A clone of the repository with a release."""
    clone = clones.make(tmp_path / "template")
    clones.run(clone, "git", "tag", "v1.0.0")
    return clone


def copier(folder: Path, *arguments: str) -> str:
    return clones.run(folder, sys.executable, "-m", "copier", *arguments)


def test_a_project_is_made_and_takes_in_a_later_fix(template: Path, tmp_path: Path) -> None:
    answers = ("--data", "project_name=shop", "--data", "parts=[tuning]", "--defaults")
    copier(tmp_path, "copy", "--vcs-ref", "v1.0.0", *answers, str(template), "shop")
    shop = tmp_path / "shop"
    assert (shop / "components" / "tuning" / "part.py").is_file()
    for gone in ("components/serving", "tests/components/serving", "pipeline/adopt", "copier.yml"):
        assert not (shop / gone).exists(), gone
    for kept in clones.tree(template):
        if kept.startswith(("components/trainer/", "pipeline/kubeflow")):
            assert (shop / kept).exists() == ("kubeflow" not in kept), kept

    small.write_csv(shop / "data" / "rows.csv", small.rows(400))
    small.write_config(shop / "configs", small.SETTINGS)
    (shop / small.SETTINGS["schema_file"]).write_text(small.schema_text())
    graph = shop / "pipeline" / "graph.py"
    graph.write_text(graph.read_text().replace('"""The pipeline', '"""Our pipeline', 1))
    clones.commit(shop)

    fixed = template / "pipeline" / "graph.py"
    fixed.write_text(fixed.read_text() + "\n# a later fix\n")
    new = template / "components" / "serving" / "later.py"
    new.write_text('"""Of a part that the fork does not have."""\n')
    clones.commit(template)
    clones.run(template, "git", "tag", "v1.1.0")
    copier(shop, "update", "--defaults")
    text = graph.read_text()
    assert text.startswith('"""Our pipeline')
    assert text.endswith("# a later fix\n")
    assert not (shop / "components" / "serving").exists()
    assert "<<<<" not in text

    assert "filed as version 1" in clones.pipeline(shop, "run", "--config", "small")
    options = ("-q", "-n0", "-p", "no:cacheprovider", "-W", "ignore", "-m", "not prove")
    tests = (
        "tests/pipeline/test_loading.py",
        "tests/pipeline/test_cli.py",
        "tests/components/test_gate.py",
    )
    clones.run(shop, sys.executable, "-m", "pytest", *options, *tests)
