"""`parts` without more: what there is, what it costs, and who uses it."""

import io
from pathlib import Path

from rich.console import Console

from pipeline.parts import catalogue, listing
from pipeline.parts.removing import remove
from tests.parts import clones, small_tree


def told(project: Path) -> str:
    written = io.StringIO()
    assert listing.tell(project, Console(file=written, width=200, soft_wrap=True)) == 0
    return written.getvalue()


def test_each_part_with_its_cost_and_its_users(tmp_path: Path) -> None:
    project = small_tree.make(tmp_path)
    lines = told(project).splitlines()
    (row,) = [line.split() for line in lines if line.startswith("blue ")]
    assert "blue: the blue one. Set in configs/: base." in lines
    assert "red: the red one. It has commands of its own." in lines
    remove(project, ["blue"], dry_run=False, yes=True)
    changes = clones.run(project, "git", "diff", "--numstat").splitlines()
    lines_gone = sum(int(line.split()[1]) - int(line.split()[0]) for line in changes)
    files_gone = clones.run(project, "git", "diff", "--name-only", "--diff-filter=D").split()
    assert row == ["blue", str(len(files_gone)), str(lines_gone), "0"]


def test_when_all_are_off_it_says_so(tmp_path: Path) -> None:
    project = small_tree.make(tmp_path)
    remove(project, ["blue", "red"], dry_run=False, yes=True)
    assert told(project) == "All optional parts are off.\n"


def test_every_part_of_this_project_is_told_by_the_command() -> None:
    printed = clones.pipeline(clones.PROJECT, "parts")
    for part in catalogue.of_project(clones.PROJECT).parts.values():
        assert f"{part.name}: {part.what}." in printed
