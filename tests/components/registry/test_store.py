"""Versions under many processes, kills, damage and deletion."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from components.errors import PipelineStop
from components.registry import labels, store
from tests.components.registry.registries import add, python

PUSH = """
import sys
from components.registry import store
folder, model, fingerprint = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
print(store.add_version(folder, model, {"fingerprint": fingerprint}), flush=True)
"""


def damage(registry: str, model: str) -> list[str]:
    """Everything about the versions that is not as it was pushed."""
    expected = {
        str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(model).rglob("*")
        if path.is_file()
    }
    wrong = []
    for version in store.list_versions(registry):
        folder = Path(store.version_folder(registry, version))
        manifest = store.read_manifest(registry, version)
        found = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name != store.MANIFEST
        }
        if not found == expected == manifest["files"] or manifest["version"] != version:
            wrong.append(str(folder))
    return wrong


@pytest.mark.parametrize(("existing", "version"), [([], 1), ([1], 2), ([3, 1], 4), ([2, 9, 5], 10)])
def test_the_next_version_follows_the_highest(existing: list[int], version: int) -> None:
    assert store.next_version(existing) == version


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


def test_a_number_is_not_used_again_after_its_version_was_deleted(
    registry: str, model: str
) -> None:
    for name in "abc":
        add(registry, model, name)
    shutil.rmtree(store.version_folder(registry, 3))
    assert add(registry, model, "c") == 4
    for version in (1, 2, 4):
        shutil.rmtree(store.version_folder(registry, version))
    assert add(registry, model, "d") == 5


def test_fifty_processes_pushing_at_once_give_fifty_whole_versions(
    any_registry: str, model: str
) -> None:
    registry = any_registry
    processes = [start_push(registry, model, f"model {number}") for number in range(50)]
    for process in processes:  # all are waiting: now at once
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    versions = [int(process.communicate()[0]) for process in processes]
    assert sorted(versions) == store.list_versions(registry) == list(range(1, 51))
    assert not damage(registry, model)


def start_push(registry: str, model: str, fingerprint: str) -> "subprocess.Popen[str]":
    """A process that has everything imported and pushes at the next line it is sent."""
    process = python(PUSH, registry, model, fingerprint)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def kill_pushes(registry: str, model: str, rounds: int, seed: int) -> tuple[int, int]:
    """Kills pushes at random moments; says how many left a version and how many none."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    first = start_push(registry, model, "how long it takes")
    started = time.monotonic()
    first.communicate("\n")
    whole = time.monotonic() - started
    made = 0
    for number in range(rounds):
        before = store.list_versions(registry)
        process = start_push(registry, model, f"model {number}")
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        after = store.list_versions(registry)
        assert set(before) <= set(after), f"seed {seed}, round {number}"
        assert not damage(registry, model), f"seed {seed}, round {number}"
        made += len(after) - len(before)
    last = add(registry, model, "after all kills")
    assert last == store.list_versions(registry)[-1]
    left = [name for name in os.listdir(registry) if name.startswith(".tmp-")]
    assert not left, f"seed {seed}: not swept"
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
    copied = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*.*")}
    assert copied == {"saved_model.pb", "variables/variables.index"}
    Path(registry, "1", "saved_model.pb").write_bytes(b"damaged")
    Path(registry, "1", "variables", "variables.index").unlink()
    with pytest.raises(
        PipelineStop,
        match=r"in .*/1 saved_model.pb was changed, variables/variables.index is missing",
    ):
        store.copy_version(registry, 1, str(tmp_path / "again"))


@pytest.mark.parametrize("content", [None, "{", "not json"])
def test_a_damaged_manifest_is_named(registry: str, model: str, content: str | None) -> None:
    add(registry, model, "a")
    path = Path(registry, "1", "manifest.json")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(PipelineStop, match=r"Version 1 .* damaged: .*manifest.json cannot be read"):
        store.find_by_fingerprint(registry, "a")


def test_an_empty_registry_has_nothing(registry: str) -> None:
    assert store.list_versions(registry) == []
    assert store.read_labels(registry) == {}
    assert store.find_by_fingerprint(registry, "a") is None


def test_a_removed_version_is_gone_and_its_number_with_it(registry: str, model: str) -> None:
    for name in "ab":
        add(registry, model, name)
    store.remove_version(registry, 2)
    assert store.list_versions(registry) == [1]
    assert not [name for name in os.listdir(registry) if name.startswith(".tmp-")]
    assert add(registry, model, "c") == 3


def test_a_version_with_a_label_is_not_removed(registry: str, model: str) -> None:
    add(registry, model, "a")
    labels.assign(registry, "mine", 1, labels.Mover("ann", "for the audit"))
    with pytest.raises(PipelineStop, match="Version 1 is mine, and stays"):
        store.remove_version(registry, 1)
    assert not store.damage(registry, 1)
