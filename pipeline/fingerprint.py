"""Fingerprints of exactly the code that a component runs.

TFX's cache knows a function named by its import path only by that path; with the fingerprint among
a component's properties, an edit of the code runs the component again, and nothing else does.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def code_fingerprint(*modules: str, project: Path = PROJECT) -> str:
    """Hashes the modules and all of the project's modules that they import, however deep.

    Args:
      modules: dotted names, e.g. "components.features.transform".
      project: the folder that holds the packages.

    Returns:
      16 hex digits, the same wherever the project lies.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(modules, project)):
        digest.update(name.encode() + _source(name, project).read_bytes())
    return digest.hexdigest()[:16]


def _closure(modules: tuple[str, ...], project: Path) -> set[str]:
    found: set[str] = set()
    waiting = [m for m in modules if _is_module(m, project)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(_source(name, project), project)
    return found


@functools.cache
def _imports(source: Path, project: Path) -> list[str]:
    tree = ast.parse(source.read_bytes())
    return [name for node in ast.walk(tree) for name in _names(node) if _is_module(name, project)]


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_module(name: str, project: Path) -> bool:
    return _source(name, project).is_file()


def _source(name: str, project: Path) -> Path:
    path = project.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
