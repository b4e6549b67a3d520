"""Versions under many processes, kills, damage and deletion."""

import hashlib
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from components.errors import PipelineStop
from components.registry import labels, store
from tests.components.registry.registries import ANN, Child, add, filled, promote


def assert_whole(registry: str, model: str) -> None:
    """Every version is as it was pushed."""
    for version in store.list_versions(registry):
        manifest = store.read_manifest(registry, version)
        found = hashes(Path(store.version_folder(registry, version)))
        assert found == hashes(Path(model)) == manifest["files"]
        assert manifest["version"] == version


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != store.MANIFEST
    }


def test_a_version_is_tf_servings_layout_with_a_manifest_and_is_not_filed_twice(
    registry: str, model: str
) -> None:
    assert (store.list_versions(registry), store.find_by_fingerprint(registry, "a")) == ([], None)
    assert [add(registry, model, name) for name in "abab"] == [1, 2, 1, 2]
    files = {str(p.relative_to(registry)) for p in Path(registry).glob("1/**/*") if p.is_file()}
    assert files == {"1/saved_model.pb", "1/variables/variables.index", "1/manifest.json"}
    # TF Serving loads whatever is a number, and nothing else.
    assert {n for n in os.listdir(registry) if n.lstrip("-").isdigit()} == {"1", "2"}
    assert_whole(registry, model)


@pytest.mark.parametrize("counter", [None, "", "abc", "0"])
def test_a_number_is_not_used_again_after_its_version_was_deleted(
    registry: str, model: str, counter: str | None
) -> None:
    """Where the counter is damaged, the folders and the moves of labels say what was used."""
    promote(filled(registry, model, 4), 4, 1)
    shutil.rmtree(store.version_folder(registry, 4))
    if counter is not None:
        Path(registry, ".last_version").write_text(counter)
    assert add(registry, model, "d") == 5


def test_many_processes_pushing_at_once_give_whole_versions(any_registry: str, model: str) -> None:
    children = [Child(add, any_registry, model, f"model {number}") for number in range(20)]
    for child in children:  # all are waiting: now at once
        child.go()
    versions = [child.result() for child in children]
    assert sorted(versions) == store.list_versions(any_registry) == list(range(1, 21))
    assert_whole(any_registry, model)


@pytest.mark.parametrize("rounds", [12, pytest.param(60, marks=pytest.mark.prove)])
def test_a_killed_push_leaves_no_version_or_a_whole_one(
    any_registry: str, model: str, rounds: int
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    first = Child(add, any_registry, model, "how long it takes")
    started = time.monotonic()
    first.go()
    first.result()
    whole = time.monotonic() - started
    for number in range(rounds):
        before = store.list_versions(any_registry)
        child = Child(add, any_registry, model, f"model {number}")
        child.go()
        child.kill_after(chance.uniform(0, whole))
        assert {*before} <= {*store.list_versions(any_registry)}
        assert_whole(any_registry, model)
    made = store.list_versions(any_registry)
    assert rounds < 50 or 1 < len(made) < rounds, "too early or too late to prove anything"
    assert add(any_registry, model, "after all kills") == store.list_versions(any_registry)[-1]
    assert not [name for name in os.listdir(any_registry) if name.startswith(".tmp-")]


def test_a_copy_is_checked_against_what_was_filed(
    registry: str, model: str, tmp_path: Path
) -> None:
    add(registry, model, "a")
    store.copy_version(registry, 1, str(tmp_path / "copy"))
    assert hashes(tmp_path / "copy") == hashes(Path(model))
    Path(registry, "1", "saved_model.pb").write_bytes(b"damaged")
    Path(registry, "1", "variables", "variables.index").unlink()
    with pytest.raises(
        PipelineStop,
        match=r"in .*/1 saved_model.pb was changed, variables/variables.index is missing",
    ):
        store.copy_version(registry, 1, str(tmp_path / "again"))


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"version": 2, "files": {}}'])
def test_a_damaged_manifest_is_named_and_passed_over_by_those_who_look_for_a_model(
    registry: str, model: str, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    filled(registry, model)
    path = Path(registry, "2", "manifest.json")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(PipelineStop, match=r"Version 2 .* damaged: .*manifest.json cannot be read"):
        store.read_manifest(registry, 2)
    assert store.find_by_fingerprint(registry, "a") == 1
    assert add(registry, model, "new") == 4
    assert "passed over: Version 2 of the registry is damaged" in caplog.text


def test_a_removed_version_is_gone_and_its_number_with_it_but_one_with_a_label_stays(
    registry: str, model: str
) -> None:
    labels.assign(filled(registry, model, 2), "mine", 1, ANN)
    with pytest.raises(PipelineStop, match="Version 1 is mine, and stays"):
        store.remove_version(registry, 1)
    store.remove_version(registry, 2)
    assert store.list_versions(registry) == [1]
    assert not [name for name in os.listdir(registry) if name.startswith(".tmp-")]
    assert add(registry, model, "c") == 3
