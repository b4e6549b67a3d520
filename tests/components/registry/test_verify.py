import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.registry import labels
from components.registry.labels import Mover
from components.registry.verify import verify
from tests.components.registry.registries import add


@pytest.fixture
def two(registry: str, model: str) -> Path:
    for version in (1, 2):
        add(registry, model, f"model {version}", note="as filed")
        labels.promote(registry, version, Mover("ann", ""), over=version - 1 or None)
    return Path(registry)


def test_a_whole_registry(two: Path) -> None:
    assert verify(str(two)) == {"version 1": [], "version 2": [], "labels": [], "models.config": []}


def edit_manifest(two: Path) -> None:
    path = two / "2" / "manifest.json"
    path.write_text(path.read_text().replace("as filed", "as forged"))


def swap(two: Path) -> None:
    shutil.copy(two / "1" / "manifest.json", two / "2" / "manifest.json")


def cut_history(two: Path) -> None:
    path = two / "history.jsonl"
    first = json.loads(path.read_text().splitlines()[0])
    first["moves"]["champion"]["to"] = 7
    path.write_text(json.dumps(first) + "\n")


@pytest.mark.parametrize(
    ("harm", "where", "problem"),
    [
        (lambda two: (two / "2/saved_model.pb").write_bytes(b""), "version 2", "pb was changed"),
        (lambda two: (two / "1/saved_model.pb").unlink(), "version 1", "saved_model.pb is missing"),
        (lambda two: (two / "1/extra").touch(), "version 1", "extra was added"),
        (edit_manifest, "version 2", "manifest.json was changed"),
        (swap, "version 2", "manifest.json is that of version 1"),
        (lambda two: (two / "2/manifest.json").unlink(), "version 2", "cannot be read"),
        (lambda two: (two / "2/manifest.json").write_text("[]"), "version 2", "it is no object"),
        (lambda two: (two / "2/manifest.json").write_text("{}"), "version 2", "has no 'files'"),
        (lambda two: shutil.rmtree(two / "1"), "labels", "'previous' is version 1, which is not"),
        (lambda two: (two / "labels.json").write_text("{"), "labels", "is not JSON"),
        (lambda two: (two / "history.jsonl").write_text("{\n"), "labels", ""),
        (cut_history, "labels", "move 2 took 'champion' from 1, and it was 7"),
        (lambda two: (two / "models.config").unlink(), "models.config", "next move"),
    ],
)
def test_damage_is_found_where_it_is(
    two: Path, harm: Callable[[Path], object], where: str, problem: str
) -> None:
    harm(two)
    found = verify(str(two))
    assert any(problem in text for text in found[where])
    assert [name for name, problems in found.items() if problems] == [where]
