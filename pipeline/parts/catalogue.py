"""Which optional parts there are: `parts.toml`, whose lines bear marks like any other file's."""

import os
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

FILE = "pipeline/parts/parts.toml"
PYPROJECT = "pyproject.toml"
LOCK = "uv.lock"

_NOT_OURS = frozenset(
    {".git", ".venv", ".venv-tpu", "workspace", "build", "__pycache__", ".pytest_cache"}
    | {".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", "node_modules"}
)
_MARKED = frozenset({"", ".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".pbtxt", ".txt", ".cfg"})
"""Endings of files that can bear marks; Makefile, Dockerfile and scripts have none."""


@dataclass(frozen=True)
class Part:
    """An optional part."""

    name: str
    what: str
    """A sentence for a person."""
    settings: tuple[str, ...] = ()
    """Of `configs/*.yaml`, those that are its own: `a.b`, or `a.b=VALUE` for one value of it."""


@dataclass(frozen=True)
class Catalogue:
    """The parts that are still there, and all files and folders that belong to any of them."""

    parts: dict[str, Part]
    shared: dict[str, frozenset[str]]
    """What several parts are built on, and goes with the last of them: those parts, by its name."""
    paths: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """All that marks may name."""
        return frozenset({*self.parts, *self.shared})

    def with_shared(self, removed: Collection[str]) -> list[str]:
        """The parts, and what nobody needs without them."""
        unneeded = {name for name, needed_by in self.shared.items() if needed_by <= {*removed}}
        return sorted({*removed, *unneeded})


def read(text: str) -> Catalogue:
    """Reads what `parts.toml` says."""
    found = tomllib.loads(text)
    parts = {
        name: Part(name, entry["what"], tuple(entry.get("settings", ())))
        for name, entry in found.get("part", {}).items()
    }
    shared = {name: frozenset(parts) for name, parts in found.get("shared", {}).items()}
    return Catalogue(parts, shared, tuple(found["files"]["paths"]))


def of_project(project: Path) -> Catalogue:
    """The project's."""
    return read((project / FILE).read_text(encoding="utf-8"))


def marked_files(project: Path) -> Iterator[str]:
    """The files that may bear marks, relative to the project, in order."""
    for folder, folders, files in os.walk(project):
        folders[:] = sorted(set(folders) - _NOT_OURS)
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix in _MARKED and not path.is_symlink() and _is_text(path):
                yield path.relative_to(project).as_posix()


def _is_text(path: Path) -> bool:
    """Whether it can be read as UTF-8."""
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def files_in(project: Path, path: str) -> list[Path]:
    """The files of a path of `parts.toml`: the file itself, or all in the folder."""
    top = project / path
    if not top.is_dir():
        return [top] if top.is_file() else []
    return sorted(p for p in top.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
