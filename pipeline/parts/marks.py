"""Marks: comments that say which lines belong to an optional part.

`# part: blue` at the end of a line marks that line. On a line of its own, with `{` behind it, it
marks what follows, up to `# part: }`; blocks may lie within blocks. `blue and red` needs both
parts. In Markdown a mark is `<!-- part: blue -->`, and in a table it stands in the last cell.
"""

import itertools
import re
from collections.abc import Collection
from typing import NamedTuple

from components.errors import PipelineStop

_NAMES = r"(?P<names>[a-z_]+(?: and [a-z_]+)*)"
_HASH = re.compile(rf".*# part: (?:{_NAMES}(?P<opens> \{{)?|(?P<closes>\}}))")
_MARKDOWN = re.compile(rf".*<!-- part: (?:{_NAMES}(?P<opens> \{{)?|(?P<closes>\}})) -->(?: \|)?")
_LOOKS_LIKE_ONE = re.compile(r"""(?:\#|<!--)\s*parts?\s*:[^`"']*$""", re.IGNORECASE)


class Mistake(NamedTuple):
    """A mark that is wrong."""

    line: int
    """From 1."""
    text: str


def named(text: str, file: str) -> set[str]:
    """The parts that the marks of a file's text name."""
    marks = (_mark(line, file) for line in text.split("\n"))
    return {name for mark in marks if mark for name in _names(mark)}


def mistakes(text: str, file: str, known: Collection[str]) -> list[Mistake]:
    """What is wrong with the marks of a file's text."""
    found, opened = [], []
    syntax = _MARKDOWN if file.endswith(".md") else _HASH
    for number, line in enumerate(text.split("\n"), 1):
        mark = _mark(line, file)
        if mark is None:
            wrong = _LOOKS_LIKE_ONE.search(line)
            if wrong and (syntax is _HASH or wrong[0].startswith("<")):
                found.append(Mistake(number, f"'{wrong[0].strip()}' is nearly a mark"))
            continue
        unknown = sorted(_names(mark) - set(known))
        found += [Mistake(number, f"there is no part '{name}'") for name in unknown]
        if mark["opens"]:
            opened.append(number)
        elif mark["closes"] and not opened:
            found.append(Mistake(number, "it closes a block that nothing opens"))
        elif mark["closes"]:
            opened.pop()
    return found + [Mistake(number, "nothing closes this block") for number in opened]


def without(text: str, removed: Collection[str], file: str) -> str:
    """A file's text once parts are off: without the lines that need one of them.

    Where a gap closes between two stretches of empty lines, the longer one stays. So no formatter
    has to go over it, and parts removed one by one or together leave the same.

    Args:
      text: of the file.
      removed: names of parts.
      file: its name; Markdown has marks of its own.

    Raises:
      PipelineStop: a block is not closed, or closed twice.
    """
    wrong = mistakes(text, file, named(text, file))
    if wrong:
        lines = "".join(f"\n  {file}:{each.line}: {each.text}" for each in wrong)
        raise PipelineStop(f"Marks of parts are wrong; put them right first.{lines}")
    left = _left(text, removed, file)
    if None not in left:
        return "\n".join(line for line in left if line is not None)
    return "\n".join(_closed_up(left)).strip("\n") + "\n"


def _left(text: str, removed: Collection[str], file: str) -> list[str | None]:
    """The lines as they will be; None for those that go."""
    left: list[str | None] = []
    goes: list[bool] = []  # of each open block
    for line in text.split("\n"):
        mark = _mark(line, file)
        gone = mark is not None and not _names(mark).isdisjoint(removed)
        if mark and mark["closes"]:
            gone = goes.pop()
        left.append(None if gone or any(goes) else line)
        if mark and mark["opens"]:
            goes.append(gone)
    return left


def _closed_up(lines: list[str | None]) -> list[str]:
    """Of the empty lines around a gap, the longest stretch."""
    closed: list[str] = []
    for is_text, group in itertools.groupby(lines, lambda line: bool(line and line.strip())):
        run = list(group)
        if not is_text and None in run:
            stretches = itertools.groupby(run, lambda line: line is None)
            run = [""] * max((len(list(some)) for gap, some in stretches if not gap), default=0)
        closed += [line for line in run if line is not None]
    return closed


def _mark(line: str, file: str) -> re.Match[str] | None:
    return (_MARKDOWN if file.endswith(".md") else _HASH).fullmatch(line)


def _names(mark: re.Match[str]) -> set[str]:
    return set((mark["names"] or "").split(" and ")) - {""}
