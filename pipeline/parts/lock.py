"""`uv.lock` once dependency groups are gone from `pyproject.toml`: without the network, by pruning.

uv itself would resolve again, and reads the metadata of every package for that. What is left of a
lock is one already: no version has to change. A test compares the outcome with uv's own.
"""

import functools
import re
import tomllib
from collections.abc import Callable, Iterable
from typing import Any

_BETWEEN = "\n[[package]]\n"
_ARRAY = re.compile(
    r"^(?P<key>[\w-]+) = \[(?:\n(?P<items>(?:    .*,\n)*)|(?P<item>.*))\]\n", re.MULTILINE
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_RUNS = re.compile(r"[-_.]+")

Groups = dict[str, set[str]]
"""Names of the packages that each dependency group asks for."""


def packages(lock: str) -> dict[str, str]:
    """The versions in a lock, by name."""
    return {each["name"]: each.get("version", "") for each in tomllib.loads(lock)["package"]}


def pruned(lock: str, pyproject: str) -> str:
    """The lock without the groups that are gone, and without packages that nothing asks for now.

    Args:
      lock: the text of `uv.lock`.
      pyproject: the text of `pyproject.toml`, which asks for nothing that the lock does not have.
    """
    settings = tomllib.loads(pyproject)
    groups = {k: set(map(_named, v)) for k, v in settings.get("dependency-groups", {}).items()}
    default = sorted(settings.get("tool", {}).get("uv", {}).get("default-groups", ["dev"]))
    head, *blocks = lock.rstrip("\n").split(_BETWEEN)
    blocks = [_with_groups(b, groups, default) if _is_project(b) else f"{b}\n" for b in blocks]
    reached = _reached([tomllib.loads(block) for block in blocks])
    kept = []
    for block in blocks:
        name = tomllib.loads(block)["name"]
        if name in reached:
            kept.append(_with_extras(block, reached[name]).rstrip("\n") + "\n")
    return _BETWEEN.join([head, *kept])


def _named(requirement: str) -> str:
    found = _NAME.match(requirement)
    return _RUNS.sub("-", found[0]).lower() if found else requirement


def _is_project(block: str) -> bool:
    return '\nsource = { virtual = "." }\n' in block


def _with_groups(block: str, groups: Groups, default: list[str]) -> str:
    names = ", ".join(f'"{name}"' for name in default)
    line = "" if default == ["dev"] else f"default-groups = [{names}]\n"  # dev is uv's own default
    block = re.sub(r"^default-groups = .*\n", line, block, flags=re.MULTILINE) + "\n"

    for table in ("package.dev-dependencies", "package.metadata.requires-dev"):
        block = _in_table(block, table, functools.partial(_group, groups, "metadata" in table))
    return block


def _group(groups: Groups, is_short_inline: bool, found: re.Match[str]) -> str:
    """A group's array with what it still asks for, laid out as uv does."""
    if found["key"] not in groups:
        return ""
    items = (found["items"] or f"    {found['item']},\n").splitlines(keepends=True)
    kept = [item for item in items if item.split('"')[1] in groups[found["key"]]]
    if is_short_inline and len(kept) == 1:
        only = kept[0].strip(" ,\n")
        return f"{found['key']} = [{only}]\n"
    return f"{found['key']} = [\n{''.join(kept)}]\n" if kept else f"{found['key']} = []\n"


def _with_extras(block: str, extras: set[str]) -> str:
    def array(found: re.Match[str]) -> str:
        return found[0] if found["key"] in extras else ""

    return _in_table(block, "package.optional-dependencies", array)


def _in_table(block: str, table: str, array: Callable[[re.Match[str]], str]) -> str:
    """Has `array` rewrite each array of a table; the table goes with its last one."""
    before, header, rest = block.partition(f"\n[{table}]\n")
    body, blank, after = rest.partition("\n\n")
    body = _ARRAY.sub(array, f"{body}\n") if header else ""
    return before + (header + body + blank[:1] if body else "\n" * bool(blank)) + after


def _reached(found: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The packages that the project needs, and the extras of each; "" is the package itself."""
    by_name = {each["name"]: each for each in found}
    (project,) = (each for each in found if each["source"] == {"virtual": "."})
    waiting = _asked(project.get("dependencies", ()))
    for group in project.get("package", {}).get("dev-dependencies", {}).values():
        waiting += _asked(group)
    reached: dict[str, set[str]] = {project["name"]: set()}
    while waiting:
        name, extra = waiting.pop()
        if extra not in reached.setdefault(name, set()):
            reached[name].add(extra)
            waiting += _asked(_dependencies(by_name[name], extra))
    return reached


def _dependencies(package: dict[str, Any], extra: str) -> list[dict[str, Any]]:
    if not extra:
        return list(package.get("dependencies", ()))
    return list(package.get("package", {}).get("optional-dependencies", {}).get(extra, ()))


def _asked(dependencies: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (each["name"], extra) for each in dependencies for extra in ("", *each.get("extra", ()))
    ]
