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
from tests.components.registry.registries import ANN, Child, add, promote


def damage(registry: str, model: str) -> list[str]:
    """Everything about the versions that is not as it was pushed."""
    expected = hashes(Path(model))
    wrong = []
    for version in store.list_versions(registry):
        folder = Path(store.version_folder(registry, version))
        manifest = store.read_manifest(registry, version)
        if not hashes(folder) == expected == manifest["files"] or manifest["version"] != version:
            wrong.append(str(folder))
    return wrong


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != store.MANIFEST
    }


def test_a_version_is_tf_servings_layout_with_a_manifest(registry: str, model: str) -> None:
    assert add(registry, model, "a") == 1
    files = {str(p.relative_to(registry)) for p in Path(registry).glob("1/**/*") if p.is_file()}
    assert files == {"1/saved_model.pb", "1/variables/variables.index", "1/manifest.json"}
    numbers = [name for name in os.listdir(registry) if name.lstrip("-").isdigit()]
    assert numbers == ["1"]  # TF Serving loads whatever is a number, and nothing else
    assert not damage(registry, model)


def test_the_same_model_is_not_filed_twice(registry: str, model: str) -> None:
    assert [add(registry, model, name) for name in "abab"] == [1, 2, 1, 2]
    assert store.list_versions(registry) == [1, 2]


@pytest.mark.parametrize("counter", [None, "", "abc", "0"])
def test_a_number_is_not_used_again_after_its_version_was_deleted(
    registry: str, model: str, counter: str | None
) -> None:
    """Where the counter is damaged, the folders and the moves of labels say what was used."""
    for name in "abcd":
        add(registry, model, name)
    promote(registry, 4, 1)
    shutil.rmtree(store.version_folder(registry, 4))
    if counter is not None:
        Path(registry, ".last_version").write_text(counter)
    assert add(registry, model, "d") == 5


def test_fifty_processes_pushing_at_once_give_fifty_whole_versions(
    any_registry: str, model: str
) -> None:
    children = [Child(add, any_registry, model, f"model {number}") for number in range(50)]
    for child in children:  # all are waiting: now at once
        child.go()
    versions = [child.result() for child in children]
    assert sorted(versions) == store.list_versions(any_registry) == list(range(1, 51))
    assert not damage(any_registry, model)


def kill_pushes(registry: str, model: str, rounds: int, seed: int) -> tuple[int, int]:
    """Kills pushes at random moments; says how many left a version and how many none."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    first = Child(add, registry, model, "how long it takes")
    started = time.monotonic()
    first.go()
    first.result()
    whole = time.monotonic() - started
    made = 0
    for number in range(rounds):
        before = store.list_versions(registry)
        child = Child(add, registry, model, f"model {number}")
        child.go()
        child.kill_after(chance.uniform(0, whole))
        after = store.list_versions(registry)
        assert set(before) <= set(after), f"seed {seed}, round {number}"
        assert not damage(registry, model), f"seed {seed}, round {number}"
        made += len(after) - len(before)
    assert add(registry, model, "after all kills") == store.list_versions(registry)[-1]
    assert not [name for name in os.listdir(registry) if name.startswith(".tmp-")]
    return made, rounds - made


def test_a_killed_push_leaves_no_version_or_a_whole_one(any_registry: str, model: str) -> None:
    kill_pushes(any_registry, model, 12, seed=random.randrange(10**6))


@pytest.mark.prove
def test_many_killed_pushes_leave_no_version_or_a_whole_one(any_registry: str, model: str) -> None:
    made, none = kill_pushes(any_registry, model, 200, seed=random.randrange(10**6))
    assert made and none, "the kills came all too early or all too late to prove anything"


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
    for name in "abc":
        add(registry, model, name)
    path = Path(registry, "2", "manifest.json")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(PipelineStop, match=r"Version 2 .* damaged: .*manifest.json cannot be read"):
        store.read_manifest(registry, 2)
    assert store.find_by_fingerprint(registry, "a") == 1
    assert add(registry, model, "new") == 4
    assert "passed over: Version 2 of the registry is damaged" in caplog.text


def test_an_empty_registry_has_nothing(registry: str) -> None:
    assert store.list_versions(registry) == []
    assert store.read_labels(registry) == {}
    assert store.find_by_fingerprint(registry, "a") is None


def test_a_removed_version_is_gone_and_its_number_with_it_but_one_with_a_label_stays(
    registry: str, model: str
) -> None:
    for name in "ab":
        add(registry, model, name)
    labels.assign(registry, "mine", 1, ANN)
    with pytest.raises(PipelineStop, match="Version 1 is mine, and stays"):
        store.remove_version(registry, 1)
    store.remove_version(registry, 2)
    assert store.list_versions(registry) == [1]
    assert not store.damage(registry, 1)
    assert not [name for name in os.listdir(registry) if name.startswith(".tmp-")]
    assert add(registry, model, "c") == 3
