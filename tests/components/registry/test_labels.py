"""Moves of labels: promotion, rollback, the user's own; their history; many at once, and kills."""

import contextlib
import json
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import PipelineStop
from components.registry import labels, store
from components.registry.labels import Mover
from components.registry.verify import verify
from tests.components.registry.registries import SIGNATURE, add, python

ANN = Mover("ann", "by hand")

MOVE = """
import sys
from components.registry import labels, store
folder, versions = sys.argv[1], [int(v) for v in sys.argv[2:]]
print("ready", flush=True)
sys.stdin.readline()
for version in versions:
    champion = store.read_labels(folder).get("champion")
    try:
        labels.promote(folder, version, labels.Mover("test", "why"), over=champion)
    except store.PipelineStop:
        pass  # the other process was quicker
print("done", flush=True)
"""


@pytest.fixture
def three(any_registry: str, model: str) -> str:
    """A registry with versions 1, 2 and 3, and no labels."""
    for name in "abc":
        add(any_registry, model, name)
    return any_registry


def promote(registry: str, *versions: int) -> None:
    for version in versions:
        champion = store.read_labels(registry).get("champion")
        labels.promote(registry, version, ANN, over=champion)


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
    assert labels.moves_of(three, 1) == history
    assert labels.moves_of(three, 2) == history[1:]
    assert labels.moves_of(three, 3) == []


def test_a_promotion_over_another_champion_than_was_judged_is_refused(three: str) -> None:
    promote(three, 2)
    with pytest.raises(
        PipelineStop, match="to replace champion None, but by now the champion is 2"
    ):
        labels.promote(three, 3, ANN, over=None)
    with pytest.raises(PipelineStop, match=r"no version 9 in .*Versions: 1, 2, 3"):
        labels.promote(three, 9, ANN, over=2)
    assert store.read_labels(three) == {"champion": 2}


def test_rollback_goes_back_and_further_back(three: str) -> None:
    promote(three, 1, 2, 3)
    assert labels.rollback(three, ANN) == {"champion": 2, "previous": 1}
    assert labels.rollback(three, ANN) == {"champion": 1}
    with pytest.raises(PipelineStop, match=r"no earlier champion .*Versions: 1, 2, 3"):
        labels.rollback(three, ANN)
    assert store.read_labels(three) == {"champion": 1}
    assert [entry["action"] for entry in labels.read_history(three)] == [
        *["promote"] * 3,
        *["rollback"] * 2,
    ]


def test_after_a_rollback_the_bad_one_is_not_gone_back_to(three: str) -> None:
    promote(three, 1, 2)
    labels.rollback(three, ANN)
    promote(three, 3)
    assert store.read_labels(three) == {"champion": 3, "previous": 1}
    assert labels.rollback(three, ANN) == {"champion": 1}


def test_a_version_that_leads_again_can_be_rolled_back_again(three: str) -> None:
    promote(three, 1, 2, 1)
    assert store.read_labels(three) == {"champion": 1, "previous": 2}
    assert labels.rollback(three, ANN) == {"champion": 2, "previous": 1}


def test_rollback_passes_over_what_is_gone(three: str) -> None:
    promote(three, 1, 2, 3)
    shutil.rmtree(store.version_folder(three, 2))
    assert labels.rollback(three, ANN) == {"champion": 1}


@pytest.mark.parametrize("move", ["promote", "rollback"])
def test_a_damaged_version_never_leads(three: str, move: str) -> None:
    promote(three, 1, 2)
    Path(three, "1", "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(PipelineStop, match=r"Version 1 .* damaged: .*saved_model.pb was changed"):
        labels.rollback(three, ANN) if move == "rollback" else promote(three, 1)
    assert store.read_labels(three) == {"champion": 2, "previous": 1}


def test_labels_of_the_users_own(three: str) -> None:
    promote(three, 1)
    labels.assign(three, "shadow", 2, ANN)
    labels.assign(three, "shadow", 3, Mover("bob", "newer"))
    labels.assign(three, "audit-2026", 1, ANN)
    assert store.read_labels(three) == {"champion": 1, "shadow": 3, "audit-2026": 1}
    promote(three, 3)
    assert store.read_labels(three)["shadow"] == 3
    labels.assign(three, "shadow", None, ANN)
    assert store.read_labels(three) == {"champion": 3, "previous": 1, "audit-2026": 1}
    assert labels.read_history(three)[-1]["moves"] == {"shadow": {"from": 3, "to": None}}


@pytest.mark.parametrize(
    ("label", "version", "message"),
    [
        ("champion", 1, "'champion' is not set by hand: `versions promote`"),
        ("previous", None, "'previous' is not set by hand"),
        ("7", 1, "'7' cannot be a label: small letters"),
        ("a b", 1, "'a b' cannot be a label"),
        ("mine", 9, "no version 9"),
        ("mine", None, "no label 'mine'"),
    ],
)
def test_a_label_that_cannot_be_set(
    three: str, label: str, version: int | None, message: str
) -> None:
    with pytest.raises(PipelineStop, match=message):
        labels.assign(three, label, version, ANN)
    assert store.read_labels(three) == {}


def test_a_candidate_is_none_any_more_once_it_leads(three: str) -> None:
    labels.assign(three, "candidate", 2, ANN)
    promote(three, 1)
    assert store.read_labels(three) == {"champion": 1, "candidate": 2}
    promote(three, 2)
    assert store.read_labels(three) == {"champion": 2, "previous": 1}


def test_what_breaks_the_champions_callers_is_refused_without_force(
    registry: str, model: str
) -> None:
    inputs = {**SIGNATURE["inputs"], "tolls": {"type": "INT", "required": True}}
    add(registry, model, "a")
    add(registry, model, "b", signature={**SIGNATURE, "inputs": inputs})
    promote(registry, 1)
    with pytest.raises(
        PipelineStop, match=r"break the callers of champion 1: column 'tolls' .*--force"
    ):
        promote(registry, 2)
    assert store.read_labels(registry) == {"champion": 1}
    labels.promote(registry, 2, ANN, over=1, force=True)
    assert store.read_labels(registry) == {"champion": 2, "previous": 1}


@pytest.mark.parametrize("torn", ["", '{"n": 2, "who'])
def test_a_move_killed_before_its_history_was_written_is_not_lost(three: str, torn: str) -> None:
    labels.promote(three, 1, Mover("one", ""), over=None)
    labels.promote(three, 2, Mover("two", ""), over=1)
    path = Path(three, "history.jsonl")
    path.write_text(path.read_text().splitlines()[0] + "\n" + torn)
    assert [entry["who"] for entry in labels.read_history(three)] == ["one", "two"]
    labels.promote(three, 3, Mover("three", ""), over=2)
    assert [json.loads(line)["who"] for line in path.read_text().splitlines()] == [
        "one",
        "two",
        "three",
    ]


def test_two_moves_killed_in_a_row_are_both_told(three: str) -> None:
    """Each was killed after it had replaced the labels, before it stood in the history."""
    path = Path(three, "history.jsonl")
    for version in (1, 2, 3):
        promote(three, version)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    promote(three, 1)
    assert [entry["n"] for entry in labels.read_history(three)] == [1, 2, 3, 4]
    check_history(three)


def test_a_damaged_history_does_not_stop_a_rollback(three: str) -> None:
    promote(three, 1, 2)
    path = Path(three, "history.jsonl")
    path.write_text("{garbled\n" + path.read_text())
    assert labels.rollback(three, ANN) == {"champion": 1}
    with pytest.raises(PipelineStop, match=r"history.jsonl is damaged .* labels.json"):
        labels.read_history(three)


def start_moving(registry: str, versions: list[int]) -> "subprocess.Popen[str]":
    """A process that has everything imported and moves at the next line it is sent."""
    process = python(MOVE, registry, *map(str, versions))
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def test_readers_see_whole_labels_while_processes_move_them(three: str) -> None:
    movers = [start_moving(three, versions * 40) for versions in ([1, 2], [2, 3])]
    for mover in movers:
        assert mover.stdin
        mover.stdin.write("\n")
        mover.stdin.flush()
    seen: list[dict[str, int]] = []
    while any(mover.poll() is None for mover in movers):
        seen.append(store.read_labels(three))
    assert all(mover.communicate()[0] == "done\n" for mover in movers)
    assert len({json.dumps(held) for held in seen}) > 2
    assert all(held.get("champion") != held.get("previous") for held in seen if held)
    check_history(three)


def check_history(registry: str) -> None:
    """The history is numbered and leads to the labels; nothing of the registry is damaged."""
    champion = None
    for number, entry in enumerate(labels.read_history(registry), start=1):
        moved: dict[str, Any] = entry["moves"]
        assert entry["n"] == number
        assert moved["champion"]["from"] == champion
        champion = moved["champion"]["to"]
    assert store.read_labels(registry).get("champion") == champion
    found = verify(registry)
    found.pop("models.config")  # behind, where a process was killed right before it
    assert not any(found.values()), found


def test_a_killed_move_is_whole_or_did_not_happen(three: str) -> None:
    kill_moves(three, rounds=12)


@pytest.mark.prove
def test_many_killed_moves_are_whole_or_did_not_happen(three: str) -> None:
    kill_moves(three, rounds=150)


def kill_moves(registry: str, rounds: int) -> None:
    """Kills processes in the middle of moves, and looks at what is left."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    promote(registry, 1)
    for _ in range(rounds):
        process = start_moving(registry, [2, 3, 1] * 500)
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
        before = len(labels.read_history(registry))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert len(labels.read_history(registry)) >= before
        check_history(registry)
    other = 2 if store.read_labels(registry)["champion"] == 3 else 3
    promote(registry, other)
    assert not any(verify(registry).values())


def test_tf_serving_is_told_the_labels_of_all_versions(three: str) -> None:
    promote(three, 1, 3)
    labels.assign(three, "shadow", 2, ANN)
    labels.assign(three, "shadow", 1, ANN)
    served = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(Path(three, "models.config").read_text(), served)
    (config,) = served.model_config_list.config
    assert (config.name, config.base_path) == ("taxi", "/models/taxi")
    assert config.model_platform == "tensorflow"
    assert config.model_version_policy.WhichOneof("policy_choice") == "all"
    assert dict(config.version_labels) == {"champion": 3, "previous": 1, "shadow": 1}


def test_a_registry_from_before_there_was_a_list_of_champions(three: str) -> None:
    old = {"labels": {"champion": 3, "previous": 1}, "last": None}
    Path(three, "labels.json").write_text(json.dumps(old))
    assert labels.rollback(three, ANN) == {"champion": 1}


def test_an_empty_registry_has_no_moves(registry: str) -> None:
    assert labels.read_history(registry) == []
    with pytest.raises(PipelineStop, match=r"no earlier champion .*Versions: none"):
        labels.rollback(registry, ANN)


def test_a_labels_file_that_cannot_be_read_is_named(three: str) -> None:
    promote(three, 1)
    Path(three, "labels.json").write_text("{")
    with pytest.raises(PipelineStop, match=r"labels.json is not JSON"):
        store.read_labels(three)
