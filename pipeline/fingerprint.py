"""Fingerprints of exactly the code that a component runs, and of the libraries that it runs on.

TFX's cache knows a function named by its import path only by that path; with the fingerprint among
a component's properties, an edit of the code runs the component again, and nothing else does. Of
the libraries the cache knows TFX's version only; another version of any below runs all again.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from pipeline.parts import PROJECT

LIBRARIES = (
    *("apache-beam", "duckdb", "keras", "numpy", "pandas", "pyarrow", "tensorflow"),
    *("tensorflow-data-validation", "tensorflow-model-analysis", "tensorflow-transform", "tfx-bsl"),
)
"""The libraries whose results a component's depend on."""


def code_fingerprint(*modules: str, project: Path = PROJECT) -> str:
    """Hashes the modules, all of the project's modules that they import, and `LIBRARIES`' versions.

    Args:
      modules: dotted names, e.g. "components.features.transform".
      project: the folder that holds the packages.

    Returns:
      16 hex digits, the same wherever the project lies.
    """
    digest = hashlib.sha256(_versions().encode())
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
            waiting += _imports(name, project)
    return found


@functools.cache
def _versions() -> str:
    return " ".join(f"{name}=={metadata.version(name)}" for name in LIBRARIES)


@functools.cache
def _imports(module: str, project: Path) -> list[str]:
    source = _source(module, project)
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(source.read_bytes())
    names = (name for node in ast.walk(tree) for name in _names(node, package))
    return [name for name in names if _is_module(name, project)]


def _names(node: ast.AST, package: str) -> Iterator[str]:
    """What a statement imports, in a module of a package."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        parent = ".".join([*above, *filter(None, [node.module])])
        yield parent
        yield from (f"{parent}.{alias.name}" for alias in node.names)


def _is_module(name: str, project: Path) -> bool:
    return _source(name, project).is_file()


def _source(name: str, project: Path) -> Path:
    path = project.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
