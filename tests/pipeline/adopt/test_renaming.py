"""The fork's name where the template's example stood, on a copy of the real files."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.errors import PipelineStop
from pipeline import loading
from pipeline.adopt.part import Request
from pipeline.adopt.proposal import propose
from pipeline.adopt.writing import rename

TAXI = Path(__file__).parents[2] / "taxi"


def renamed(project: Path, rows: int = 20_000, name: str = "houses", **changes: Any) -> list[str]:
    """Adopts a table of so many rows under a name, as far as the project's files are concerned."""
    table = pa.table(
        {"rooms": [3, 4] * 50, "town": ["L'Aquila"] * 99 + ["b"], "net price": range(100)}
    )
    request = Request("data/houses.csv", "net price")
    proposed = replace(propose(table, request), rows=rows, **changes)
    return rename(name, request, proposed, project)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As the template comes, whatever this fork has become."""
    shutil.copytree(TAXI, tmp_path / "configs")
    shutil.copytree(loading.PROJECT / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "template.md").unlink(missing_ok=True)
    readme = "# A workflow pipeline you can fork\n\nSee [why](docs/design.md), [what](configs/).\n"
    (tmp_path / "README.md").write_text(readme)
    return tmp_path


def adopted(project: Path) -> None:
    """The configuration that `adopt` wrote before it renames."""
    text = (project / "configs" / "taxi.yaml").read_text()
    text = re.sub("epochs: .*", "steps: 800", text.replace("name: taxi", "name: houses"))
    (project / "configs" / "houses.yaml").write_text(text)


def test_variants_start_from_the_fork_and_have_its_name(project: Path) -> None:
    adopted(project)
    told = renamed(project)
    configs = project / "configs"
    development = loading.load("development", configs=configs)
    assert (development.name, development.registry.model) == ("houses-development",) * 2
    assert development.data.sample < 1
    assert loading.load("automated", configs=configs).name == "houses-automated"
    assert "experiment: houses\n" in (configs / "kubeflow.yaml").read_text()
    assert len(told) == 3 + (configs / "kubeflow.yaml").is_file()


def test_the_example_is_left_alone_and_can_be_deleted(project: Path) -> None:
    adopted(project)
    before = (project / "configs" / "taxi.yaml").read_text()
    renamed(project)
    assert (project / "configs" / "taxi.yaml").read_text() == before
    for pattern in ("taxi.*", "replay.yaml"):
        for path in (project / "configs").glob(pattern):
            path.unlink()
    for name in loading.names(project / "configs"):
        assert loading.load(name, configs=project / "configs")


def test_few_rows_are_no_sample(project: Path) -> None:
    adopted(project)
    renamed(project, 500)
    development = loading.load("development", configs=project / "configs")
    assert (development.data.sample, development.registry.promote) == (1.0, "manual")
    assert "all of them" in (project / "README.md").read_text()


def test_the_readme_is_the_forks_and_the_templates_is_kept(project: Path) -> None:
    renamed(project)
    readme = (project / "README.md").read_text()
    assert readme.startswith("# Houses\n")
    assert "**net price** (regression) from `data/houses.csv`" in readme
    assert "a sample, 40%" in readme
    assert not re.search(r"\$[a-z{]|taxi", readme)
    kept = (project / "docs" / "template.md").read_text()
    assert "[why](design.md), [what](../configs)" in kept
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", readme):
        assert (project / link).exists() or link == "configs/houses.yaml", link


def test_what_is_adopted_later_renames_nothing(project: Path) -> None:
    renamed(project)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert renamed(project, 9_000, "boats") == []
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_the_row_of_a_wide_table_is_not_typed(project: Path) -> None:
    renamed(project, row={f"x{number}": 1 for number in range(500)})
    readme = (project / "README.md").read_text()
    assert "predict --config houses - < row.json" in readme
    assert "x499" not in readme


def test_a_readme_of_ones_own_stays(project: Path) -> None:
    (project / "README.md").write_text("# Mine\n")
    variants = 2 + (project / "configs" / "kubeflow.yaml").is_file()
    assert len(renamed(project)) == variants
    assert (project / "README.md").read_text() == "# Mine\n"
    assert not (project / "docs" / "template.md").exists()


def test_a_full_disk_leaves_all_as_it_was(project: Path) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    blocked = project / ".tmp-README.md"
    blocked.mkdir()
    with pytest.raises(PipelineStop, match="cannot be written"):
        renamed(project)
    blocked.rmdir()
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
