"""Optional parts: what a folder with a `part.py` adds, and that it goes with the folder."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import parts
from tests import clones, small, warm

MINE = '''
"""A part of a fork's own."""

TRAINERS = {"elsewhere": "components.mine.run"}


def settings():
    from components.mine.settings import Mine

    return {"mine": (Mine, Mine())}


def problems(config):
    if config.part("mine").colour == config.name:
        yield ("mine", "colour"), "is the name"


def register(app):
    @app.command()
    def paint() -> None:
        print("painted")
'''
SETTINGS = '''
"""Its settings."""

from components.settings import Strict


class Mine(Strict):
    """One."""

    colour: str = "red"
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The core and a configuration, with a part of its own and no other one."""
    for package in ("components", "pipeline"):
        shutil.copytree(parts.PROJECT / package, tmp_path / package)
    for name in parts.present():
        shutil.rmtree(tmp_path.joinpath(*name.split(".")))
    folder = tmp_path / "components" / "mine"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "part.py").write_text(MINE)
    (folder / "settings.py").write_text(SETTINGS)
    small.write_config(tmp_path / "configs", small.SETTINGS | {"mine?": {"colour": "green"}})
    return tmp_path


def call(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=project,
        env=small.environment_of_a_copy(),
        capture_output=True,
        text=True,
    )


def config(project: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    options = [f"--set={override}" for override in overrides]
    return call(project, "config", "--config", "small", *options)


def test_a_folder_adds_commands_settings_and_strategies(project: Path) -> None:
    assert call(project, "paint").stdout == "painted\n"
    assert "colour: green" in config(project).stdout
    assert config(project, "training.strategy=elsewhere").returncode == 0
    wrong = config(project, "mine.color=blue", "training.epochs=0").stderr
    assert "did you mean 'colour'?" in wrong
    assert "--set mine.colour: is the name" in config(project, "mine.colour=small").stderr


def test_it_goes_with_its_folder(project: Path) -> None:
    shutil.rmtree(project / "components" / "mine")
    assert call(project, "paint").returncode == 2
    done = config(project)
    assert done.returncode == 0, done.stderr
    assert "colour" not in done.stdout
    assert "mine: unknown setting" in config(project, "mine.colour=blue").stderr
    assert "'elsewhere' is not one of auto" in config(project, "training.strategy=elsewhere").stderr


def test_a_slip_in_a_key_with_a_question_mark_is_no_missing_part(project: Path) -> None:
    small.write_config(project / "configs", small.SETTINGS | {"minne?": {"colour": "green"}})
    assert "minne: unknown setting; did you mean 'mine'?" in config(project).stderr


def without(folder: Path, away: list[str]) -> Path:
    """A clone of the project without some parts and their tests; the tests' own are left."""
    clone = clones.make(folder)
    for name in away:
        for top in (clone, clone / "tests"):
            shutil.rmtree(top.joinpath(*name.split(".")), ignore_errors=True)
    return clone


def both(name: str) -> list[str]:
    """The part's folders: one of `components` and one of `pipeline` may be the same part."""
    return [other for other in parts.present() if other.split(".")[1] == name.split(".")[1]]


@pytest.mark.prove
@pytest.mark.timeout(1500)
def test_with_all_parts_away_it_lints_and_runs(tmp_path: Path) -> None:
    clone = without(tmp_path / "clone", list(parts.present()))
    binaries = Path(sys.executable).parent
    for tool in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        clones.run(clone, sys.executable, "-m", *tool)
    clones.run(clone, str(binaries / "lint-imports"))
    small.write_csv(clone / "data" / "rows.csv", small.rows(400))
    small.write_config(clone / "configs", small.SETTINGS)
    (clone / small.SETTINGS["schema_file"]).write_text(small.schema_text())
    assert "filed as version 1" in clones.pipeline(clone, "run", "--config", "small")


@pytest.mark.prove
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", [name for name in parts.present() if both(name)[0] == name])
def test_with_one_away_all_imports_and_the_core_is_tested(tmp_path: Path, name: str) -> None:
    clone = without(tmp_path / "clone", both(name))
    options = ("-q", "-n0", "-p", "no:cacheprovider", "-W", "ignore")
    quick = ("-k", "test_cli or test_loading")  # all others are imported, and left out then
    code, output = warm.run(clone, [*options, *quick], small.environment_of_a_copy(), "pytest")
    assert code == 0, output
