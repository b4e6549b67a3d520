"""`docs/patterns.md`, made from the catalogue and from the parts that are there."""

import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from components.files import write_atomically
from pipeline.loading import PROJECT
from pipeline.patterns.catalogue import Catalogue, InPart, Pattern, Proof, read
from pipeline.patterns.parts import Part, present

PAGE = PROJECT / "docs" / "patterns.md"

REMOVED = "not in this fork: its part was removed"

_INTRODUCTION = """\
# The book's patterns: a checklist

*Machine Learning Design Patterns* (Lakshmanan, Robinson, Munn; O'Reilly 2020) has thirty. A pattern
counts as built here when a line of configuration or a command turns it on, or it is always on, and
a test fails when it is taken out. What is **not built** is marked, and not half there.

**In a design review**, go through [all thirty](#all-thirty). Where a question is yours, read its
section: the problem, what is done about it here, what that costs, and how it is switched on. Or
begin with your [kind of data](#by-kind-of-data), or with [what troubles you](#by-situation). This
prints what a configuration uses already, and which of its settings say so:

```console
$ python3 -m pipeline patterns --config mine
```

The switches are pieces of a configuration about a shop's sales; its columns are called `amount`,
`shop` and `method`. The tests are those to run when you change the pattern, the files are where to
begin to read.

This page is made from `pipeline/patterns/catalogue.yaml` by `python3 -m pipeline patterns --write`.
"""


def write(page: Path = PAGE) -> None:
    """Writes the page, as this fork's parts make it."""
    write_atomically(str(page), render(read(), present()))


def render(catalogue: Catalogue, parts: Collection[Part]) -> str:
    """The page.

    Args:
      catalogue: what is known of the patterns.
      parts: the optional parts that are there; what others add is left out.
    """
    blocks = [_INTRODUCTION.strip(), "## All thirty", *_overview(catalogue, parts)]
    blocks += ["## By kind of data", _kinds(catalogue, parts)]
    blocks += ["## By situation", _situations(catalogue, parts)]
    for chapter, patterns in catalogue.chapters.items():
        blocks.append(f"## {chapter}")
        for pattern in patterns:
            blocks += _section(pattern, parts)
    return "\n\n".join(blocks) + "\n"


def status(pattern: Pattern, parts: Collection[Part]) -> str:
    """What there is of a pattern in a fork with these parts, in a word or a sentence."""
    if pattern.part is not None and pattern.part not in parts:
        return REMOVED
    return {"yes": "yes", "in part": "in part", "no": "**not built**"}[pattern.built]


def _overview(catalogue: Catalogue, parts: Collection[Part]) -> Iterator[str]:
    rows = []
    for chapter, patterns in catalogue.chapters.items():
        rows.append(f"| | **{chapter}** | | |")
        rows += [
            f"| {p.number} | {_link(p.name, _anchor(p))} | {p.ask} | {status(p, parts)} |"
            for p in patterns
        ]
    yield _table("| | pattern | ask yourself | here |", rows)


def _kinds(catalogue: Catalogue, parts: Collection[Part]) -> str:
    rows = []
    for key, kind in catalogue.kinds.items():
        found = [p for p in catalogue.patterns() if key in p.data]
        rows.append(f"| **{kind.title}** | {kind.note} | {_index(found, parts)} |")
    found = [p for p in catalogue.patterns() if "any" in p.data]
    rows.append(f"| **Any** | | {_index(found, parts)} |")
    return _table("| data | here | patterns |", rows)


def _situations(catalogue: Catalogue, parts: Collection[Part]) -> str:
    rows = []
    for key, title in catalogue.situations.items():
        found = [p for p in catalogue.patterns() if key in p.situations]
        rows.append(f"| {title} | {_index(found, parts)} |")
    return _table("| situation | patterns |", rows)


def _index(found: list[Pattern], parts: Collection[Part]) -> str:
    """Links to patterns, those that are there first."""
    here = {p.name: status(p, parts) for p in found}
    ordered = sorted(found, key=lambda p: here[p.name] not in ("yes", "in part"))
    marks = {"yes": "", "in part": " (in part)", REMOVED: " (removed)"}
    return ", ".join(
        _link(p.name, _anchor(p)) + marks.get(here[p.name], " (not built)") for p in ordered
    )


def _section(pattern: Pattern, parts: Collection[Part]) -> Iterator[str]:
    yield f"### {pattern.title}"
    yield _paragraph("Problem", pattern.problem)
    if pattern.home is not None:
        yield _paragraph("Not built", f"Where it will live: {pattern.home}")
    elif pattern.part is not None and pattern.part not in parts:
        yield f"**{REMOVED[0].upper()}{REMOVED[1:]}** (`{pattern.part}`)."
    else:
        yield from _built(pattern, parts)


def _built(pattern: Pattern, parts: Collection[Part]) -> Iterator[str]:
    yield _paragraph("Here", pattern.solution)
    if pattern.missing is not None:
        yield _paragraph("Built in part", pattern.missing)
    yield _paragraph("Trade-off", pattern.trade_off)
    yield from _switch(pattern)
    yield from _proof(pattern)
    added = [_added(more) for more in pattern.in_parts if more.part in parts]
    if added:
        yield "\n".join(added)


def _switch(pattern: Pattern) -> Iterator[str]:
    assert pattern.switch is not None
    always, command = pattern.switch.always, pattern.switch.command
    said = [f"Always on: {always}."] if always else []
    said += [f"`{command}`."] if command else []
    said += [f"It is in the optional part `{pattern.part}`."] if pattern.part else []
    if pattern.switch.settings is None:
        yield _paragraph("Switch", " ".join(said))
    else:
        yield _paragraph("Switch", " ".join([*said, "In a configuration:"]))
        yield _fenced(pattern.switch.settings)


def _proof(proof: Proof) -> Iterator[str]:
    yield _paragraph("Test", ", ".join(map(_test, proof.tests)))
    yield _paragraph("Read", ", ".join(map(_file, [*proof.docs, *proof.files])))


def _added(more: InPart) -> str:
    """An item of a list, its example of a configuration below it."""
    said = [f"With the part `{more.part}`: {more.adds}"]
    said += [f"Switch: `{more.command}`."] if more.command else []
    said += [f"Test: {', '.join(map(_test, more.tests))}."] if more.tests else []
    said += [f"Read: {', '.join(map(_file, [*more.docs, *more.files]))}."]
    item = _wrapped("- " + " ".join(said), indent="  ")
    if more.settings is None:
        return item
    return f"{item}\n\n{textwrap.indent(_fenced(more.settings), '  ')}\n"


def _paragraph(title: str, text: str) -> str:
    return _wrapped(f"**{title}.** {text}".strip())


def _wrapped(text: str, indent: str = "") -> str:
    """Lines of at most 100 characters; links stay whole."""
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _fenced(settings: str) -> str:
    return f"```yaml\n{settings.strip()}\n```"


def _table(head: str, rows: Sequence[str]) -> str:
    return "\n".join([head, re.sub(r"[^|]+", " --- ", head), *rows])


def _anchor(pattern: Pattern) -> str:
    """The anchor that GitHub gives a pattern's heading."""
    return "#" + re.sub(r"[^\w -]", "", pattern.title.lower()).replace(" ", "-")


def _test(node: str) -> str:
    """A link to a test: a name if there is one, else the file or the folder."""
    path, _, name = node.partition("::")
    return _link(f"`{name or path}`", f"../{path}")


def _file(path: str) -> str:
    page = path.removeprefix("docs/")
    return _link(f"`{path}`", f"../{path}") if page == path else _link(path, page)


def _link(text: str, target: str) -> str:
    return f"[{text}]({target})"
