"""What the catalogue names is there."""

import ast
from collections.abc import Iterator

import pytest
import yaml
from pydantic import ValidationError

from pipeline.loading import PROJECT
from pipeline.patterns import catalogue
from pipeline.patterns.catalogue import Catalogue, Pattern, Proof
from pipeline.patterns.parts import present

CATALOGUE = catalogue.read()
BUILT = [pattern for pattern in CATALOGUE.patterns() if pattern.built != "no"]


def _here(pattern: Pattern) -> Iterator[Proof]:
    """What is said of a pattern in this fork, with the parts that it has."""
    parts = present()
    if pattern.part is None or pattern.part in parts:
        yield pattern
    yield from (more for more in pattern.in_parts if more.part in parts)


def _tests_of(path: str) -> set[str]:
    tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_all_thirty_are_there_in_the_books_order() -> None:
    assert [pattern.number for pattern in CATALOGUE.patterns()] == list(range(1, 31))
    assert len({pattern.name for pattern in CATALOGUE.patterns()}) == 30


@pytest.mark.parametrize("pattern", BUILT, ids=lambda pattern: pattern.name)
def test_every_named_test_is_there(pattern: Pattern) -> None:
    for proof in _here(pattern):
        for node in proof.tests:
            path, _, name = node.partition("::")
            if name:
                assert name in _tests_of(path), f"{pattern.title}: no {name} in {path}"
            else:
                found = [PROJECT / path, *(PROJECT / path).rglob("*.py")]
                assert any(each.name.startswith("test_") and each.is_file() for each in found), path


@pytest.mark.parametrize("pattern", BUILT, ids=lambda pattern: pattern.name)
def test_every_named_file_is_there(pattern: Pattern) -> None:
    for proof in _here(pattern):
        for path in [*proof.files, *(page.partition("#")[0] for page in proof.docs)]:
            assert (PROJECT / path).is_file(), f"{pattern.title}: no {path}"


def test_every_situation_and_kind_of_data_leads_to_a_pattern() -> None:
    patterns = list(CATALOGUE.patterns())
    for key in CATALOGUE.situations:
        assert any(key in pattern.situations for pattern in patterns), key
    for key in CATALOGUE.kinds:
        assert any(key in pattern.data for pattern in patterns), key


def _changed(number: int, changes: dict[str, object]) -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load(catalogue.FILE.read_text(encoding="utf-8"))
    for patterns in content["chapters"].values():  # type: ignore[attr-defined]
        for pattern in patterns:
            if pattern["number"] == number:
                pattern.update(changes)
    return content


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (5, {"solution": "A head."}, "it has a home and nothing else"),
        (1, {"tests": []}, "lacks a solution, trade-off, switch, test or file"),
        (1, {"situations": ["no_such"]}, "neither a kind nor a situation: {'no_such'}"),
        (1, {"part": "no_such"}, "input should be 'kubeflow'"),
    ],
)
def test_a_pattern_is_described_whole_or_not_at_all(
    number: int, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=f"(?i){message}"):
        Catalogue.model_validate(_changed(number, changes))
