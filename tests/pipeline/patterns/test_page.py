"""docs/patterns.md: what the catalogue says, with links that lead somewhere."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.loading import PROJECT
from pipeline.patterns import catalogue
from pipeline.patterns.page import PAGE, REMOVED, render, write
from pipeline.patterns.parts import Part, present

CATALOGUE = catalogue.read()
PARTS = get_args(Part)


def _tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or []


def _links(text: str) -> list[str]:
    return [str(t.attrs["href"]) for t in _tokens(text) if t.type == "link_open"]


def _anchors(text: str) -> set[str]:
    """Anchors as GitHub makes them: lower case, no punctuation, numbered if there are several."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    headings = [
        after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"
    ]
    made: Counter[str] = Counter()
    found = set()
    for heading in headings:
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{made[slug]}" if made[slug] else slug)
        made[slug] += 1
    return found


def test_the_page_is_what_the_catalogue_says() -> None:
    same = PAGE.read_text(encoding="utf-8") == render(CATALOGUE, present())
    assert same, "docs/patterns.md differs: python -m pipeline patterns --write"


def test_writing_leaves_the_page_alone_in_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "patterns.md")
    assert [path.name for path in tmp_path.iterdir()] == ["patterns.md"]
    assert (tmp_path / "patterns.md").read_text(encoding="utf-8") == render(CATALOGUE, present())


def test_every_link_leads_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = _links(text)
    assert len(links) > 100
    for link in links:
        path, _, anchor = link.partition("#")
        target = (PAGE.parent / path).resolve() if path else PAGE
        assert target.is_relative_to(PROJECT), link
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def test_every_pattern_has_a_section_that_both_indexes_and_the_list_lead_to() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = Counter(_links(text))
    numbered = {anchor for anchor in _anchors(text) if re.match(r"\d+-", anchor)}
    assert len(numbered) == 30
    for anchor in numbered:
        assert links[f"#{anchor}"] >= 3, anchor


def test_what_is_not_built_is_marked_in_list_index_and_section() -> None:
    text = render(CATALOGUE, PARTS)
    for pattern in CATALOGUE.patterns():
        section = text.split(f"### {pattern.title}\n")[1].split("\n#")[0]
        row = re.search(rf"^\| {pattern.number} \|.*$", text, re.MULTILINE)
        marked = re.findall(rf"\[{pattern.name}\]\(\S+?\)( \(not built\))?", text)[1:]
        assert row is not None
        absent = pattern.built == "no"
        assert ("**not built**" in row[0]) is absent
        assert [bool(mark) for mark in marked] == [absent] * len(marked)
        assert ("**Not built.**" in section) is absent
        assert ("**Test.**" in section) is not absent


@pytest.mark.parametrize("gone", PARTS)
def test_without_a_part_its_patterns_say_so_and_nothing_leads_to_it(gone: Part) -> None:
    text = render(CATALOGUE, [part for part in PARTS if part != gone])
    owned = [pattern for pattern in CATALOGUE.patterns() if pattern.part == gone]
    for pattern in owned:
        section = text.split(f"### {pattern.title}\n")[1].split("\n#")[0]
        assert f"**N{REMOVED[1:]}**" in section
    assert text.lower().count(REMOVED) == 2 * len(owned)
    links = [link.replace("-", "_") for link in _links(text) if not link.startswith("#")]
    assert [link for link in links if gone in link] == []
    assert f"`{gone}`:" not in text


def test_tables_and_examples_are_read_as_such() -> None:
    """A line that wraps badly would become a list or a heading."""
    types = Counter(token.type for token in _tokens(PAGE.read_text(encoding="utf-8")))
    assert types["table_open"] == 3
    assert types["ordered_list_open"] == 0
    assert types["heading_open"] == 1 + 3 + 6 + 30
    here = [
        snippet
        for pattern in CATALOGUE.patterns()
        for part, snippet in pattern.snippets
        if part is None or part in present()
    ]
    assert types["fence"] == 1 + len(here)
