"""What a removal does, worked out before anything is touched."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import PipelineStop
from pipeline.parts import catalogue, lock, marks
from pipeline.parts.catalogue import LOCK, PYPROJECT, Catalogue


@dataclass
class Plan:
    """What goes, and what changes."""

    names: list[str]
    """Of the parts."""
    gone: list[str]
    """Those, and what nobody needs without them: the names in marks."""
    paths: list[str]
    """Files and folders that go."""
    edited: dict[str, str] = field(default_factory=dict)
    """The new text of each file that loses lines."""
    files: int = 0
    """In `paths`."""
    lines: int = 0
    """In them, and of the edited ones."""
    packages: list[str] = field(default_factory=list)
    """That nothing needs any more."""


def chosen(known: Catalogue, asked: Collection[str]) -> list[str]:
    """The names of the parts that a person asks for.

    Raises:
      PipelineStop: some are no parts.
    """
    names = set(map(as_known, asked))
    unknown = sorted(names - known.parts.keys())
    if unknown:
        there = ", ".join(known.parts) or "none: all are off already"
        raise PipelineStop(f"No part is called {' or '.join(unknown)}. There are: {there}.")
    return [name for name in known.parts if name in names]


def as_known(name: str) -> str:
    """A part's name as marks have it; people may type '-' for '_'."""
    return name.replace("-", "_")


def removal(project: Path, names: Collection[str]) -> Plan:
    """Plans to take parts off.

    Args:
      project: its folder.
      names: of parts; those that are gone already change nothing.

    Raises:
      PipelineStop: marks are wrong.
    """
    before = catalogue.of_project(project)
    gone = before.with_shared(names)
    new_text = marks.without(_text(project, catalogue.FILE), gone, catalogue.FILE)
    after = catalogue.read(new_text)
    paths = _outermost(set(before.paths) - set(after.paths))
    plan = Plan(sorted(names), gone, [path for path in paths if (project / path).exists()])
    files = {file for path in plan.paths for file in catalogue.files_in(project, path)}
    plan.files, plan.lines = len(files), sum(map(count, files))
    for file in catalogue.marked_files(project):
        if not any(file == path or file.startswith(f"{path}/") for path in paths):
            _edit(plan, file, _text(project, file))
    _prune_lock(plan, project)
    return plan


def count(file: Path) -> int:
    """The lines of a file; none of one that holds no text."""
    data = file.read_bytes()
    return 0 if b"\0" in data else data.count(b"\n")


def _outermost(paths: set[str]) -> list[str]:
    """Without what lies in a folder that goes as a whole."""
    return sorted(p for p in paths if paths.isdisjoint(str(above) for above in Path(p).parents))


def _text(project: Path, file: str) -> str:
    return (project / file).read_text(encoding="utf-8")


def _edit(plan: Plan, file: str, text: str) -> None:
    new = marks.without(text, plan.gone, file)
    if new != text:
        plan.edited[file] = new
        plan.lines += text.count("\n") - new.count("\n")


def _prune_lock(plan: Plan, project: Path) -> None:
    if not (project / LOCK).is_file():
        return
    old = _text(project, LOCK)
    new = lock.pruned(old, plan.edited.get(PYPROJECT) or _text(project, PYPROJECT))
    if new != old:
        plan.edited[LOCK] = new
        plan.packages = sorted(set(lock.packages(old)) - set(lock.packages(new)))
