"""Taking parts off a small project: any order, killed anywhere, refused where it must be."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import PipelineStop
from pipeline.parts import catalogue
from pipeline.parts.applying import UNFINISHED
from pipeline.parts.plan import chosen, removal
from pipeline.parts.removing import remove
from tests.parts import clones, small_tree

KILLED_AFTER = """
import os, sys
from pathlib import Path
from pipeline.parts import removing

left = int(sys.argv[2])

def counted(name, function):
    def call(*arguments, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return function(*arguments, **named)
    return call

for module, name in ((os, "replace"), (os, "unlink"), (os, "rmdir")):
    setattr(module, name, counted(name, getattr(module, name)))
removing.remove(Path(sys.argv[1]), ["blue", "red"], dry_run=False, yes=True)
"""
"""Removes both parts, and is killed before the so-many-eth rename or deletion."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_tree.make(tmp_path / "project")


def take_off(project: Path, *names: str) -> None:
    assert remove(project, names, dry_run=False, yes=True) == 0


def test_a_part_goes_with_all_that_is_its_own(project: Path) -> None:
    before = clones.tree(project)
    take_off(project, "blue")
    after = clones.tree(project)
    assert before.keys() - after.keys() == {"blue/one.py", "blue/page.md", "blue/red.py", "both.py"}
    for file, text in after.items():
        assert b"blue" not in text, file
    assert b"import base" in after["pipeline/cli.py"]
    assert after["plain.py"] == before["plain.py"]
    assert after["picture.bin"] == before["picture.bin"]
    assert list(catalogue.of_project(project).parts) == ["red"]


def test_what_both_are_built_on_goes_with_the_last(project: Path) -> None:
    take_off(project, "red")
    assert (project / "base.py").exists()
    assert not (project / "docs").exists()
    clones.commit(project)
    take_off(project, "blue")
    assert not (project / "base.py").exists()
    assert b"part:" not in b"".join(clones.tree(project).values())


def test_any_order_leaves_the_same(tmp_path: Path) -> None:
    left = []
    for number, steps in enumerate(
        [[("blue", "red")], [("blue",), ("red",)], [("red",), ("blue",)]]
    ):
        project = small_tree.make(tmp_path / str(number))
        for names in steps:
            take_off(project, *names)
            clones.commit(project)
        left.append(clones.tree(project))
    assert left[0] == left[1] == left[2]


def test_killed_anywhere_the_same_command_ends_the_same(tmp_path: Path) -> None:
    whole = small_tree.make(tmp_path / "whole")
    take_off(whole, "blue", "red")
    kills = 0
    for step in itertools.count():
        project = small_tree.make(tmp_path / str(step))
        arguments = [sys.executable, "-c", KILLED_AFTER, str(project), str(step)]
        done = subprocess.run(arguments, cwd=clones.PROJECT, capture_output=True, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        kills += 1
        if (project / UNFINISHED).exists():
            compile((project / "pipeline" / "cli.py").read_text(), "cli.py", "exec")
        take_off(project, "blue", "red")
        assert clones.tree(project) == clones.tree(whole), step
    assert kills > 10


def test_the_plan_says_what_goes_and_touches_nothing(project: Path) -> None:
    before = clones.tree(project)
    plan = removal(project, ["blue"])
    assert plan.paths == ["blue", "both.py"]
    assert (plan.files, sorted(plan.edited)) == (
        4,
        ["README.md", "configs/base.yaml", "nested.py", "pipeline/cli.py", catalogue.FILE],
    )
    assert remove(project, ["blue"], dry_run=True, yes=False) == 0
    assert clones.tree(project) == before


def test_uncommitted_changes_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "mine.py").write_text("print('not in git')\n")
    before = clones.tree(project)
    with pytest.raises(PipelineStop, match=r"git does not have: mine\.py\. Commit"):
        take_off(project, "blue")
    assert clones.tree(project) == before


def test_without_git_it_does_not_go_on_unasked(tmp_path: Path) -> None:
    project = small_tree.make(tmp_path)
    clones.run(project, "rm", "-r", ".git")
    with pytest.raises(PipelineStop, match="Add --yes"):
        remove(project, ["blue"], dry_run=False, yes=False)
    assert (project / "blue").exists()
    take_off(project, "blue")
    assert not (project / "blue").exists()


@pytest.mark.parametrize(
    ("text", "setting"), [("blue: {size: 4}", "blue"), ("mode: fast", "mode=fast")]
)
def test_a_configuration_that_sets_it_is_named(project: Path, text: str, setting: str) -> None:
    (project / "configs" / "mine.yaml").write_text(f"extends: base\n{text}\n")
    clones.commit(project)
    with pytest.raises(PipelineStop, match=rf"configs/mine\.yaml: {setting}, of the part blue"):
        take_off(project, "blue")
    take_off(project, "red")


def test_unknown_names(project: Path) -> None:
    with pytest.raises(
        PipelineStop, match=r"No part is called base or bleu\. There are: blue, red"
    ):
        chosen(catalogue.of_project(project), ["bleu", "base", "red"])


def test_an_interrupted_removal_asks_before_it_goes_on(project: Path) -> None:
    """The person may have taken it back with git meanwhile."""
    (project / UNFINISHED).write_text("blue\n")
    before = clones.tree(project)
    with pytest.raises(PipelineStop, match="Add --yes"):
        remove(project, ["red"], dry_run=False, yes=False)
    assert clones.tree(project) == before
    take_off(project, "red")
    assert not catalogue.of_project(project).parts
