"""Moves of labels: what they do, their journal, many at once, kills, and disks that refuse."""

import errno
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import PipelineStop
from components.registry import labels, store
from components.registry.labels import Mover, verify
from tests.components.registry.registries import (
    ANN,
    SIGNATURE,
    Child,
    add,
    filled,
    move,
    move_and_die,
    promote,
    try_all,
)


@pytest.fixture
def three(registry: str, model: str) -> str:
    """A registry with versions 1, 2 and 3, and no labels."""
    return filled(registry, model)


@pytest.fixture
def any_three(any_registry: str, model: str) -> str:
    """The same, on the disk and on a file system that is mounted into it."""
    return filled(any_registry, model)


def test_a_promotion_is_recorded(three: str) -> None:
    labels.promote(three, 1, Mover("run 7", "blessed against the heuristic"), over=None)
    labels.promote(three, 1, Mover("run 7", "again"), over=None)
    labels.promote(three, 2, ANN, over=1)
    assert store.read_labels(three) == {"champion": 2, "previous": 1}
    history = labels.read_history(three)
    assert [(e["n"], e["who"], e["why"], e["action"]) for e in history] == [
        (1, "run 7", "blessed against the heuristic", "promote"),
        (2, "ann", "by hand", "promote"),
    ]
    assert history[1]["moves"] == {
        "champion": {"from": 1, "to": 2},
        "previous": {"from": None, "to": 1},
    }
    assert history[0]["time"].endswith("+00:00")
    assert [labels.moves_of(three, n) for n in (1, 2, 3)] == [history, history[1:], []]
    copied = json.loads(Path(three, "labels.json").read_text())
    assert (copied["labels"], copied["last"]["n"]) == ({"champion": 2, "previous": 1}, 2)


def test_what_was_not_decided_on_is_refused(three: str) -> None:
    promote(three, 2)
    with pytest.raises(PipelineStop, match="replace champion None, but by now the champion is 2"):
        labels.promote(three, 3, ANN, over=None)
    with pytest.raises(PipelineStop, match=r"no version 9 in .*Versions: 1, 2, 3"):
        labels.promote(three, 9, ANN, over=2)
    promote(three, 1)
    Path(three, "2", "saved_model.pb").write_bytes(b"damaged")
    for change in (lambda: labels.rollback(three, ANN), lambda: promote(three, 2)):
        with pytest.raises(PipelineStop, match=r"Version 2 .* damaged: .*pb was changed"):
            change()
    assert store.read_labels(three) == {"champion": 1, "previous": 2}


@pytest.mark.parametrize(
    ("promoted", "gone", "back"),
    [
        ([1, 2, 3], None, [{"champion": 2, "previous": 1}, {"champion": 1}]),
        ([1, 2, 1], None, [{"champion": 2, "previous": 1}, {"champion": 1}]),
        ([1, 2, 3], 2, [{"champion": 1}]),
        ([1, 2, "back", 3], None, [{"champion": 1}]),  # not to the one that was taken out
    ],
)
def test_rollback_goes_back_and_further_back(
    three: str, promoted: list[Any], gone: int | None, back: list[dict[str, int]]
) -> None:
    for version in promoted:
        labels.rollback(three, ANN) if version == "back" else promote(three, version)
    if gone:
        shutil.rmtree(store.version_folder(three, gone))
    assert [labels.rollback(three, ANN) for _ in back] == back
    with pytest.raises(PipelineStop, match=r"no earlier champion .*any of them can be"):
        labels.rollback(three, ANN)
    assert store.read_labels(three) == back[-1]


def test_what_breaks_the_champions_callers_is_refused_without_force(
    registry: str, model: str
) -> None:
    inputs = {**SIGNATURE["inputs"], "tolls": {"type": "INT", "required": True}}
    add(registry, model, "a")
    add(registry, model, "b", signature={**SIGNATURE, "inputs": inputs})
    add(registry, model, "c")
    promote(registry, 1)
    with pytest.raises(PipelineStop, match=r"'tolls' is required, .* with --force"):
        promote(registry, 2)
    labels.promote(registry, 2, ANN, over=1, force=True)
    Path(registry, "2", "manifest.json").write_text("{}")
    with pytest.raises(PipelineStop, match=r"champion 2 send; promote version 3 with --force"):
        promote(registry, 3)
    labels.promote(registry, 3, ANN, over=2, force=True)
    assert store.read_labels(registry) == {"champion": 3, "previous": 2}


def test_tf_serving_is_told_the_labels_of_all_versions(three: str) -> None:
    promote(three, 1, 3)
    labels.assign(three, "shadow", 1, ANN)
    served = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(Path(three, "models.config").read_text(), served)
    (config,) = served.model_config_list.config
    assert (config.name, config.base_path) == ("taxi", "/models/taxi")
    assert config.model_platform == "tensorflow"
    assert config.model_version_policy.WhichOneof("policy_choice") == "all"
    assert dict(config.version_labels) == {"champion": 3, "previous": 1, "shadow": 1}


# Many at once, and kills


def test_readers_see_whole_labels_while_processes_move_them(any_three: str) -> None:
    movers = [Child(move, any_three, order * 40) for order in ([1, 2], [2, 3])]
    for mover in movers:
        mover.go()
    seen: list[dict[str, int]] = []
    while any(mover.process.is_alive() for mover in movers):
        seen.append(store.read_labels(any_three))
    assert [mover.process.exitcode for mover in movers] == [0, 0]
    assert len({json.dumps(held) for held in seen}) > 2
    assert all(held.get("champion") != held.get("previous") for held in seen if held)
    check_history(any_three)


def check_history(registry: str) -> None:
    """The moves are numbered and lead to the labels; with the copies, nothing is damaged."""
    numbers = [entry["n"] for entry in labels.read_history(registry)]
    assert numbers == list(range(1, len(numbers) + 1))
    labels.mend(registry)
    assert not any((problems := verify(registry)).values()), problems


@pytest.mark.parametrize("rounds", [12, pytest.param(60, marks=pytest.mark.prove)])
def test_a_killed_move_is_whole_or_did_not_happen(any_three: str, rounds: int) -> None:
    kill_moves(any_three, rounds)


def kill_moves(registry: str, rounds: int) -> None:
    """Kills processes in the middle of moves, and looks at what is left."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    promote(registry, 1)
    for _ in range(rounds):
        before = len(labels.read_history(registry))
        child = Child(move, registry, [2, 3, 1] * 500)
        child.go()
        child.kill_after(chance.uniform(0, 0.05))
        assert len(labels.read_history(registry)) >= before
        check_history(registry)


def test_what_a_move_killed_after_its_line_left_is_caught_up_with(three: str) -> None:
    """By any next command; one that says "is champion already" writes the copies, too."""
    promote(three, 1)
    copies = [Path(three, name) for name in ("labels.json", "models.config")]
    for version, again in (
        (2, lambda: labels.promote(three, 2, ANN, over=1)),
        (3, lambda: labels.mend(three)),
    ):
        before = [path.read_text() for path in copies]
        killed = Child(move_and_die, three, version)
        killed.go()
        killed.process.join()
        assert killed.process.exitcode == -signal.SIGKILL
        assert store.read_labels(three) == {"champion": version, "previous": version - 1}
        assert [path.read_text() for path in copies] == before
        again()
        assert f'key: "champion" value: {version}' in copies[1].read_text()
        assert json.loads(copies[0].read_text())["labels"]["champion"] == version
    assert labels.mend(three) == []


def test_half_a_line_is_a_move_that_did_not_happen(three: str) -> None:
    promote(three, 1, 2)
    path = Path(three, "history.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert store.read_labels(three) == {"champion": 1}
    promote(three, 3)
    assert store.read_labels(three) == {"champion": 3, "previous": 1}
    check_history(three)


# Disks that refuse, damage, and registries of an older state of the project


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (None, r"Nothing was changed: .* \(Permission denied\)\. Do it as a user who may"),
        (20, r"Nothing was changed: .* cannot be written \(File too large\)\."),
    ],
)
def test_a_disk_that_refuses_is_told_in_a_sentence_and_nothing_moves(
    three: str, model: str, room: int | None, words: str
) -> None:
    promote(three, 1, 2, 1)
    before = Path(three, "history.jsonl").read_bytes()
    Path(three).chmod(0o555)
    child = Child(try_all, three, model, None if room is None else len(before) + room)
    child.go()
    *moves, added, removed = child.result()
    Path(three).chmod(0o755)
    told = moves if room else [*moves, added, removed]
    assert all(re.match(words, one) for one in told), told
    assert added.startswith("Nothing was changed: ")
    assert Path(three, "history.jsonl").read_bytes() == before
    assert store.list_versions(three) == ([1, 2] if room else [1, 2, 3])


def test_a_move_whose_copies_find_no_room_has_happened_and_is_said_to_have(
    three: str, model: str
) -> None:
    child = Child(try_all, three, model, 250)
    child.go()
    told = child.result()[0]
    assert told.startswith("The labels are moved ({'champion': 2}), but not for TF Serving: "), told
    assert store.read_labels(three) == {"champion": 2}
    check_history(three)


def test_a_full_disk_is_told_with_what_to_do() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/r/taxi/labels.json")
    told = store.unwritable("/r/taxi", error)
    assert told.startswith("/r/taxi/labels.json cannot be written (No space left on device). ")
    assert "make room first" in told


def test_a_damaged_line_is_named_and_stops_nothing_unless_it_is_the_last(three: str) -> None:
    promote(three, 1, 2, 3)
    path = Path(three, "history.jsonl")
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("[]\n" + "".join(rest))
    assert store.read_labels(three) == {"champion": 3, "previous": 2}
    assert labels.rollback(three, ANN) == {"champion": 2, "previous": 1}
    for read in (lambda: labels.read_history(three), lambda: labels.moves_of(three, 1)):
        with pytest.raises(PipelineStop, match=r"Line 1 of .*history.jsonl is damaged .*take the"):
            read()
    path.write_text(first + "{}\n")
    for change in (lambda: promote(three, 2), lambda: labels.rollback(three, ANN)):
        with pytest.raises(PipelineStop, match=r"Line 2 of .* is damaged \(n: Field required\)"):
            change()


OLD_MOVE = {"time": "2026-01-01T00:00:00+00:00", "who": "ann", "why": "", "action": "promote"}
OLD_HISTORY = [
    {"n": 1, **OLD_MOVE, "moves": {"champion": {"from": None, "to": 1}}},
    {
        "n": 2,
        **OLD_MOVE,
        "moves": {"champion": {"from": 1, "to": 3}, "previous": {"from": None, "to": 1}},
    },
]


@pytest.mark.parametrize("written", [2, 1])  # 1: killed before it stood in the history
@pytest.mark.parametrize("listed", [{"champions": [1, 3]}, {}])
def test_an_older_registry_is_the_beginning_of_the_journal(
    three: str, listed: dict[str, Any], written: int
) -> None:
    state = {"labels": {"champion": 3, "previous": 1}, "last": OLD_HISTORY[1], **listed}
    Path(three, "labels.json").write_text(json.dumps(state))
    lines = "".join(json.dumps(entry) + "\n" for entry in OLD_HISTORY[:written])
    Path(three, "history.jsonl").write_text(lines)
    assert store.read_labels(three) == {"champion": 3, "previous": 1}
    assert labels.read_history(three) == OLD_HISTORY[:written]
    assert labels.mend(three) == ["models.config"]
    assert labels.rollback(three, ANN) == {"champion": 1}
    assert [entry["n"] for entry in labels.read_history(three)] == [*range(1, written + 1), 3]
    assert not any((problems := verify(three)).values()), problems


@pytest.mark.parametrize("text", ["{", "{}", "[]", "null", '{"labels": {"champion": "3"}}'])
def test_an_older_registry_of_the_wrong_shape_is_named(three: str, text: str) -> None:
    Path(three, "labels.json").write_text(text)
    for read in (store.read_labels, lambda folder: labels.rollback(folder, ANN)):
        with pytest.raises(PipelineStop, match=r"labels.json is damaged \(.*Restore it from a"):
            read(three)


def test_labels_outlive_a_lost_journal_and_a_lost_copy(three: str) -> None:
    promote(three, 1, 2)
    Path(three, "history.jsonl").unlink()
    assert labels.rollback(three, ANN) == {"champion": 1}
    Path(three, "labels.json").write_text("[]")
    assert store.read_labels(three) == {"champion": 1}
    assert labels.mend(three) == ["labels.json"]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("harm", "where", "problem"),
    [
        (lambda two: (two / "2/saved_model.pb").write_bytes(b""), "version 2", "pb was changed"),
        (lambda two: (two / "1/saved_model.pb").unlink(), "version 1", "saved_model.pb is missing"),
        (lambda two: (two / "1/extra").touch(), "version 1", "extra was added"),
        (lambda two: edit(two / "2/manifest.json", '"b"', '"x"'), "version 2", "json was changed"),
        (lambda two: shutil.copy(two / "1/manifest.json", two / "2"), "version 2", "of version 1"),
        (lambda two: (two / "2/manifest.json").unlink(), "version 2", "cannot be read"),
        (lambda two: (two / "2/manifest.json").write_text("[]"), "version 2", "it is no object"),
        (lambda two: (two / "2/manifest.json").write_text("{}"), "version 2", "no 'version'"),
        (lambda two: shutil.rmtree(two / "1"), "labels", "'previous' is version 1, which is not"),
        (lambda two: edit(two / "history.jsonl", '"n": 1', "1"), "labels", "Line 1 of "),
        (lambda two: edit(two / "history.jsonl", '"n": 2', "2"), "labels", "Line 2 of "),
        (
            lambda two: edit(two / "history.jsonl", '"from": 1', '"from": 7'),
            "labels",
            "move 2 does not begin where the one before it ended",
        ),
        (lambda two: (two / "labels.json").unlink(), "models.config", "labels.json is not what"),
        (lambda two: (two / "models.config").unlink(), "models.config", "not what the labels say"),
        (lambda two: (two / ".last_version").write_text("abc"), ".last_version", "number 3 was"),
    ],
)
def test_damage_is_found_where_it_is(
    three: str, harm: Callable[[Path], object], where: str, problem: str
) -> None:
    promote(three, 1, 2)
    names = ["version 1", "version 2", "version 3", "labels", "models.config", ".last_version"]
    assert verify(three) == {name: [] for name in names}
    harm(Path(three))
    problems = verify(three)
    assert any(problem in text for text in problems[where]), problems
    damaged = {name for name, texts in problems.items() if texts}
    assert damaged <= {where, "models.config"}  # which no longer fits a damaged journal
