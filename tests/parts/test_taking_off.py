"""Each part is taken off a clone in turn, and all at once: what is left stands on its own.

After each: lint, the tests' imports, the docs' links, the tests of the settings, of the command
line and of files that lost lines, and a run from data to version 1. Without all of them, and in a
fork that has adopted a table and deleted the example: every test that is left, and of
tests/end_to_end one file. PARTS_FULL=1 runs every test that is left without each single part as
well, which takes hours.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import bootstrap
from pipeline.parts import catalogue
from pipeline.parts.plan import removal
from tests.parts import clones, links

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3600)]

PARTS = list(catalogue.of_project(clones.PROJECT).parts)
FULL = bool(os.environ.get("PARTS_FULL"))
_BIN = Path(sys.executable).parent
_ALWAYS = (
    "tests/parts/test_tree.py",
    "tests/pipeline/patterns",
    "tests/pipeline/test_cli.py",
    "tests/pipeline/test_loading.py",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy has read, for all clones: they differ little."""
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return clones.make(tmp_path / "clone")


@pytest.mark.parametrize("part", PARTS)
def test_without_one_part_the_rest_stands(clone: Path, cache: Path, part: str) -> None:
    clones.pipeline(clone, "parts", "remove", part, "--yes")
    edited = clones.run(clone, "git", "diff", "--name-only", "--diff-filter=M").split()
    clones.commit(clone)
    check_by_reading(clone, cache)
    check_a_run(clone)
    quick = (*_ALWAYS, *filter(_is_quick_test, edited))
    check_tests(clone, lambda name: FULL or name.startswith(quick))


def test_without_any_part_the_core_stands(clone: Path, cache: Path) -> None:
    clones.pipeline(clone, "parts", "remove", *PARTS, "--yes")
    clones.commit(clone)
    check_by_reading(clone, cache)
    assert "All optional parts are off." in clones.pipeline(clone, "parts")
    check_a_run(clone)
    clones.adopt_and_delete_the_example(clone)
    slow, one = "tests/end_to_end/", "tests/end_to_end/test_model.py"
    check_tests(clone, lambda name: name == one or not name.startswith(slow))


@pytest.mark.parametrize("part", PARTS)
def test_without_two_parts_nothing_is_imported_in_vain(
    tmp_path: Path, clone: Path, part: str
) -> None:
    """With any other part, and with all others."""
    others = [name for name in PARTS if name != part]
    for number, names in enumerate([*([part, other] for other in others if other > part), others]):
        left = shutil.copytree(clone, tmp_path / str(number))
        plan = removal(left, names)
        for file, text in plan.edited.items():
            (left / file).write_text(text)
        clones.run(left, "rm", "-r", *plan.paths)
        check_style(left)


@pytest.mark.parametrize("parts", [PARTS, PARTS[::-1], [*PARTS[::2], *PARTS[1::2]]], ids=str)
def test_one_by_one_leaves_what_all_at_once_does(
    tmp_path: Path, clone: Path, parts: list[str]
) -> None:
    together = shutil.copytree(clone, tmp_path / "together")
    clones.pipeline(together, "parts", "remove", *parts, "--yes")
    for part in parts:
        clones.pipeline(clone, "parts", "remove", part, "--yes")
        clones.commit(clone)
    left, whole = clones.tree(clone), clones.tree(together)
    assert [name for name in {*left, *whole} if left.get(name) != whole.get(name)] == []


def _is_quick_test(name: str) -> bool:
    slow = ("tests/end_to_end", "tests/kubeflow", "tests/components/trainer")
    return Path(name).match("test_*.py") and not name.startswith(slow)


def check_by_reading(clone: Path, cache: Path) -> None:
    """What needs no run of the project: lint, links, the lock."""
    check_style(clone)
    clones.run(clone, str(_BIN / "mypy"), "--cache-dir", str(cache))
    clones.run(clone, str(_BIN / "lint-imports"), "--no-cache")
    assert links.broken(clone) == []
    if os.path.exists(bootstrap.UV):
        uv = (bootstrap.UV, "lock", "--check", "--offline", "--no-config")
        clones.run(clone, *uv, "--python", sys.executable)


def check_style(clone: Path) -> None:
    """No name unknown, no import unused, and nothing that a formatter would touch."""
    clones.run(clone, str(_BIN / "ruff"), "check", "--no-cache", ".")
    clones.run(clone, str(_BIN / "ruff"), "format", "--check", "--no-cache", ".")


def check_tests(clone: Path, chosen: Callable[[str], bool]) -> None:
    """Imports every test of the clone, and runs those in the chosen files, one after the other."""
    files = [str(path.relative_to(clone)) for path in clone.glob("tests/**/test_*.py")]
    left_out = [f"--deselect={name}" for name in files if not chosen(name)]
    options = ("-q", "-n0", "-p", "no:cacheprovider", "-m", "not prove", "-W", "ignore")
    clones.run(clone, sys.executable, "-m", "pytest", *options, *left_out, "tests")


def check_a_run(clone: Path) -> None:
    """From the example's data to version 1, by the command line."""
    assert "The model filed as version 1" in clones.pipeline(clone, "run")
