"""This project's own marks, and the list of what belongs to its parts."""

import pytest

from pipeline.parts import catalogue, marks
from pipeline.parts.plan import removal
from tests.parts import clones, links

CATALOGUE = catalogue.of_project(clones.PROJECT)


def test_every_mark_is_right() -> None:
    mistakes = [
        f"{file}:{mistake.line}: {mistake.text}"
        for file in catalogue.marked_files(clones.PROJECT)
        for mistake in marks.mistakes((clones.PROJECT / file).read_text(), file, CATALOGUE.names)
    ]
    assert mistakes == []


def test_every_path_of_a_part_is_there_and_marked() -> None:
    text = (clones.PROJECT / catalogue.FILE).read_text()
    missing = [path for path in CATALOGUE.paths if not (clones.PROJECT / path).exists()]
    assert {*missing} <= {"configs/replay.yaml"}, "but for the example's, which a fork may delete"
    everything = marks.without(text, CATALOGUE.names, catalogue.FILE)
    assert catalogue.read(everything) == catalogue.Catalogue({}, {}, ())


@pytest.mark.parametrize("name", CATALOGUE.parts)
def test_no_listed_path_lies_in_a_folder_that_went(name: str) -> None:
    plan = removal(clones.PROJECT, [name])
    left = catalogue.read(plan.edited[catalogue.FILE])
    inside = [p for p in left.paths for gone in plan.paths if p == gone or p.startswith(f"{gone}/")]
    assert inside == []


def test_every_link_of_the_docs_leads_somewhere() -> None:
    assert links.broken(clones.PROJECT) == []
