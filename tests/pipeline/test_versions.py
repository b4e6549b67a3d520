"""The command group `versions`, by the real command line, on small registries of real files."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.registry import labels, store
from components.registry.labels import Mover
from pipeline import loading
from pipeline.cli import app

MODEL = "taxi-development"
HEAVY = ("tensorflow", "tfx", "apache_beam", "ml_metadata", "duckdb")

CONFIG: dict[str, Any] = {
    "name": MODEL,
    "data": {"path": "data", "sample": 0.4, "split": {"by": "row", "train": 0.7}},
    "features": {
        "problem": "binary",
        "label": {"column": "big_tipper", "classes": None},
        "columns": {
            "fare": {"column": None, "kind": "numeric", "missing": "mean"},
            "company": {"column": None, "kind": "vocabulary", "top_k": 50, "missing": "own"},
        },
        "crosses": {},
        "exclude": {"tips": "leakage"},
        "slices": [["company"]],
    },
    "model": {"hidden": [64, 32], "dropout": 0.3},
    "training": {"seed": 42, "epochs": 20, "learning_rate": {"initial": 0.001}},
    "evaluation": {"thresholds": [{"metric": "auc", "at_least": 0.9, "at_most": None}]},
}
SIGNATURE = {
    "inputs": {
        "fare": {"type": "FLOAT", "required": False},
        "company": {"type": "BYTES", "required": True},
    },
    "ignored": ["tips"],
    "problem": "binary",
    "classes": None,
}


def by_slice(auc: float, slices: int = 12) -> dict[str, Any]:
    """Metrics over all rows and of slices, the first the worst, in the order of their numbers."""
    named = {f"company={n}": {"auc": auc - 0.3 + n / 100, "log_loss": 0.4} for n in range(slices)}
    return {"overall": {"auc": auc, "log_loss": 0.25, "accuracy": 0.9}, **named}


def a_manifest(fingerprint: str, auc: float = 0.95) -> dict[str, Any]:
    """What the push writes, with everything in it."""
    return {
        "model": MODEL,
        "time": "2026-11-20T03:40:59+00:00",
        "run_id": "20261120-034059-48770",
        "signature": copy.deepcopy(SIGNATURE),
        "config": copy.deepcopy(CONFIG),
        "config_hash": "c" * 64,
        "code": "5ac168fd323d8676",
        "git_commit": "d71c99d9bfcf227e17000b7f760bfddd51be3606+",
        "data": [
            {
                "uri": "/data/pipeline_root/taxi/ExampleGen/examples/46",
                "input_fingerprint": "num_files:1,sha256:c4880d91",
                "spans": "[4]",
                "rows_train": 10461,
                "rows_eval": 1531,
                "rows_test": 3010,
            }
        ],
        "schema_hash": "5" * 64,
        "transform_hash": "7" * 64,
        "fingerprint": fingerprint,
        "hyperparameters": {name: CONFIG[name] for name in ("model", "training")},
        "library_versions": {"tensorflow": "2.21.0", "numpy": "2.4.6"},
        "training": {
            "steps": 410,
            "rows": 10461,
            "seconds": 1.84,
            "replicas": 2,
            "warm_start": None,
            "checkpoints": {"saved": 3, "resumed_at": [200]},
        },
        "metrics": {"candidate": by_slice(auc), "heuristic": by_slice(0.9)},
        "rows_by_slice": {name: 3010 if name == "overall" else 250 for name in by_slice(auc)},
        "baseline": {"kind": "heuristic", "version": None},
        "heuristic": {"rule": "payment_type == 'Credit Card'"},
        "parent": None,
    }


class Registry:
    """The registry of one model, and the command line on it."""

    def __init__(self, root: Path):
        self.workspace = root / "workspace"
        self.folder = self.workspace / "registry" / MODEL
        self.saved_model = root / "model"
        (self.saved_model / "variables").mkdir(parents=True)

    def add(self, change: Callable[[dict[str, Any]], object] = bool, auc: float = 0.95) -> int:
        """Files the next version, its manifest changed."""
        number = len(store.list_versions(str(self.folder))) + 1
        (self.saved_model / "saved_model.pb").write_bytes(b"%d" % number)
        (self.saved_model / "variables" / "variables.index").write_bytes(b"index")
        manifest = a_manifest(f"model {number}", auc)
        change(manifest)
        return store.add_version(str(self.folder), str(self.saved_model), manifest)

    def lead(self, *versions: int) -> None:
        """Makes them champion, one after the other."""
        for version in versions:
            over = self.labels().get("champion")
            labels.promote(str(self.folder), version, Mover("run 7", "blessed"), over)

    def labels(self) -> dict[str, int]:
        return store.read_labels(str(self.folder))

    def history(self) -> list[dict[str, Any]]:
        return labels.read_history(str(self.folder))

    def call(self, *arguments: str, code: int = 0) -> str:
        """Runs a command of the group, which must end with the code, and returns its words."""
        place = f"--set=workspace={self.workspace}"
        result = CliRunner().invoke(app, ["versions", *arguments, place])
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.stderr if code == 2 else result.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.call(*arguments, "--json", code=code))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def three(registry: Registry) -> Registry:
    """Three versions: 2 is champion, 1 was before it, 3 waits."""
    for _ in range(3):
        registry.add()
    registry.lead(1, 2)
    labels.assign(str(registry.folder), "candidate", 3, Mover("run 8", "blessed"))
    return registry


def words(text: str) -> str:
    return " ".join(text.split())


def test_alone_it_shows_its_commands_and_mistakes_in_the_settings_are_told(
    registry: Registry,
) -> None:
    result = CliRunner().invoke(app, ["versions"])
    for command in ("list", "show 1", "diff 1 2", "promote 1", "rollback", "label a 1", "verify"):
        assert f" {command.split()[0]} " in result.output
        told = registry.call(*command.split(), "--set=training.epoch=3", code=2)
        assert "did you mean 'epochs'?" in told


@pytest.mark.parametrize(
    "command", [["show", "4"], ["show", "best"], ["diff", "1", "4"], ["promote", "4"]]
)
def test_a_version_that_is_not_there_is_told_with_those_that_are(
    three: Registry, command: list[str]
) -> None:
    told = three.call(*command, code=2)
    assert f"no version or label '{command[-1]}'" in told
    assert "Versions: 1, 2, 3." in told
    assert "candidate (3)" in told


# list


def test_list_has_a_row_for_each_version_the_newest_first(three: Registry) -> None:
    printed = three.call("list").splitlines()
    rows = [line.split() for line in printed if line[:1].isdigit()]
    assert [row[:2] for row in rows] == [["3", "candidate"], ["2", "champion"], ["1", "previous"]]
    for fact in ("2026-11-20", "03:40", "heuristic", "10,461", "0.9500", "0.2500"):
        assert fact in rows[0]
    assert max(len(line) for line in printed if "  " in line) <= 80
    text = words(" ".join(printed))
    assert "Champion: version 2, since 20" in text
    assert text.endswith("run 7: blessed")


def test_list_as_json(three: Registry) -> None:
    newest = three.json("list")[0]
    assert newest["version"] == 3
    assert newest["labels"] == ["candidate"]
    assert newest["judged_against"] == "heuristic"
    assert newest["metrics"] == by_slice(0.95)["overall"]
    assert newest["damage"] is None


def test_an_empty_registry_says_what_to_type(registry: Registry) -> None:
    assert "Make one with: make run-local" in registry.call("list")
    assert "Make one with: make run-local" in registry.call("verify")
    assert registry.json("list") == []
    for move in (["promote", "1"], ["rollback"], ["label", "mine", "--remove"]):
        assert registry.call(*move, code=2)
    assert not registry.folder.exists()


WRONG = ["[]", '{"version": 2, "fingerprint": "x", "files": {}, "data": 3, "metrics": []}']


@pytest.mark.parametrize("content", [None, "{", *WRONG])
def test_a_damaged_manifest_is_told_by_every_command(three: Registry, content: str | None) -> None:
    path = three.folder / "2" / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    rows = [line for line in three.call("list").splitlines() if line[:1].isdigit()]
    if content != WRONG[-1]:  # that one can be read, and has nothing in it
        assert ["damaged: versions verify" in row for row in rows] == [False, True, False]
        assert "manifest.json" in three.json("list")[1]["damage"]
        assert "damaged" in three.call("show", "2", code=2)
        assert "damaged" in three.call("diff", "1", "2", code=2)
    else:
        assert "version 2" in three.call("show", "2")
        assert "version 1" in three.call("diff", "1", "2")
    assert any(three.json("verify", code=1)["version 2"])
    assert three.call("rollback")  # to version 1, which is whole
    assert "damaged" in three.call("promote", "2", code=2)


@pytest.mark.parametrize("content", ["[]", '{"n": 1}'])
def test_a_journal_of_the_wrong_shape_is_told_by_every_command(
    three: Registry, content: str
) -> None:
    (three.folder / "history.jsonl").write_text(content + "\n")
    for command in ("list", "show 1", "diff 1 2", "promote 1", "rollback", "label mine 1"):
        assert "Line 1 of " in three.call(*command.split(), code=2)
    assert "Line 1 of " in three.json("verify", code=1)["labels"][0]
    assert "take damaged lines out" in three.call("verify", code=1)


# show


@pytest.mark.parametrize("wanted", ["2", "champion"])
def test_show_answers_an_auditor(three: Registry, wanted: str) -> None:
    printed = words(three.call("show", wanted))
    for fact in (
        "version 2 (champion)",
        f"in {three.folder}/2",
        "run_id: 20261120-034059-48770",
        "baseline: {kind: heuristic, version: null}",
        "champion 1 -> 2, previous none -> 1, by run 7: blessed",
        "parent: null",
        "payment_type == 'Credit Card'",
        "/data/pipeline_root/taxi/ExampleGen/examples/46",
        "num_files:1,sha256:c4880d91",
        "spans: '[4]'",
        "rows_train: 10461",
        "git_commit: d71c99d9bfcf227e17000b7f760bfddd51be3606+",
        "code: 5ac168fd323d8676",
        "config_hash: " + "c" * 64,
        "tensorflow: 2.21.0, numpy: 2.4.6",
        "hidden: [64, 32] dropout: 0.3",
        "seed: 42 epochs: 20 learning_rate: {initial: 0.001}",
        "exclude: {tips: leakage}",
        "company: {type: BYTES, required: true}",
        "saved: 3 resumed_at: [200]",
        "saved_model.pb: d4735e3a265e16ee",
        "test rows, then the worst slices' auc rows version 2 heuristic",
        "auc 3,010 0.9500 0.9000",
        "company=0 250 0.6500 0.6000 company=1 250 0.6600 0.6100",
    ):
        assert fact in printed, fact


def test_show_as_json_has_the_manifest_and_the_moves(three: Registry) -> None:
    shown = three.json("show", "champion")
    assert shown["version"] == 2
    assert shown["manifest"] == store.read_manifest(str(three.folder), 2)
    assert [move["n"] for move in shown["moves"]] == [2]


def test_show_of_a_challenger_names_the_champion_it_was_compared_with(registry: Registry) -> None:
    registry.add()

    def over_one(manifest: dict[str, Any]) -> None:
        manifest["baseline"] = {"kind": "champion", "version": 1}
        manifest["metrics"]["baseline"] = by_slice(0.94)

    registry.add(over_one)
    printed = words(registry.call("show", "2"))
    assert "baseline: {kind: champion, version: 1}" in printed
    assert "version 2 heuristic version 1 auc 3,010 0.9500 0.9000 0.9400" in printed
    assert "no label has ever pointed to it" in printed


def test_what_can_be_shown_is_shown_where_the_history_is_damaged(three: Registry) -> None:
    path = three.folder / "history.jsonl"
    path.write_text(path.read_text().replace('"n": 1', "1"))
    assert "Line 1 of" in three.call("show", "2")
    assert "Line 1 of" in three.call("list")
    assert "Line 1 of" in three.call("show", "2", "--json", code=2)


def test_it_loads_neither_tensorflow_nor_the_metadata(three: Registry) -> None:
    code = f"""if True:
        import sys
        from pipeline.cli import app
        for command in sys.argv[2:]:
            try:
                app(["versions", *command.split(), "--set", sys.argv[1]])
            except SystemExit as end:
                assert not end.code
        assert not (found := [m for m in {HEAVY} if m in sys.modules]), found
    """
    commands = ["list", "show 2", "diff 1 2", "promote 1", "rollback", "verify"]
    place = f"workspace={three.workspace}"
    done = subprocess.run(
        [sys.executable, "-c", code, place, *commands],
        cwd=loading.PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# diff


def other(manifest: dict[str, Any]) -> None:
    """A version that differs in everything."""
    config, table = manifest["config"], manifest["config"]["features"]
    config["training"] |= {"seed": 7, "warm_start": {"version": 1}}
    config["evaluation"]["thresholds"][0]["at_least"] = 0.8
    table["columns"]["company"]["top_k"] = 40
    table["columns"]["miles"] = {"column": "trip_miles", "kind": "numeric", "missing": "mean"}
    del table["columns"]["fare"]
    manifest["hyperparameters"] = {
        "model": {"hidden": [16], "dropout": 0.3},
        "training": config["training"],
    }
    inputs = manifest["signature"]["inputs"]
    del inputs["fare"]
    inputs["company"] = {"type": "INT", "required": True}
    inputs["trip_miles"] = {"type": "FLOAT", "required": True}
    manifest["data"][0] |= {"spans": "[5]", "input_fingerprint": "new", "rows_train": 11000}
    manifest["schema_hash"], manifest["code"] = "6" * 64, "0000"
    manifest["git_commit"] = "1" * 40
    manifest["library_versions"]["numpy"] = "2.5.0"
    manifest["training"] |= {"steps": 500, "warm_start": 1, "seconds": 9.9}
    candidate = manifest["metrics"]["candidate"]
    candidate["company=3"]["auc"] += 0.2
    candidate["company=5"]["auc"] -= 0.1
    candidate["overall"]["log_loss"] += 0.05


@pytest.fixture
def two(registry: Registry) -> Registry:
    registry.add()
    registry.add(other, auc=0.96)
    registry.lead(1)
    return registry


@pytest.mark.parametrize("wanted", ["1", "champion"])
def test_diff_has_all_that_differs(two: Registry, wanted: str) -> None:
    printed = words(two.call("diff", wanted, "2"))
    for fact in (
        "version 1 (champion) -> version 2",
        "config.training.seed 42 -> 7",
        "config.training.warm_start.version null -> 1",
        "config.evaluation.thresholds.0.at_least 0.9 -> 0.8",
        "hyperparameters.model.hidden [64, 32] -> [16]",
        "config.features.columns.miles.column null -> trip_miles",
        "config.features.columns.fare.kind numeric -> null",
        "config.features.columns.company.top_k 50 -> 40",
        "signature.inputs.company.type BYTES -> INT",
        "data.0.spans [4] -> [5]",
        "data.0.rows_train 10461 -> 11000",
        "schema_hash 555555555555 -> 666666666666",
        "git_commit d71c99d9bfcf+ -> 111111111111",
        "library_versions.numpy 2.4.6 -> 2.5.0",
        "training.steps 410 -> 500",
        "Promoting 2 over 1: would break callers: column 'company' is INT, and callers send BYTES; "
        "column 'trip_miles' is required, and callers do not send it",
        "Promoting 1 over 2: would break callers: column 'company' is BYTES",
        "Metrics, on each one's own test rows: the data differ",
        "auc 0.9500 0.9600 +0.0100 better",
        "log_loss 0.2500 0.3000 +0.0500 worse",
        "then auc where it moved most version 1 version 2 change",
        "company=3 0.6800 0.8900 +0.2100 better company=5 0.7000 0.6100 -0.0900 worse",
    ):
        assert fact in printed, fact
    assert "hyperparameters.training" not in printed  # as in the configuration
    for same in ("seconds", "dropout", "transform_hash"):
        assert same not in printed


def test_diff_as_json_has_every_slice(two: Registry) -> None:
    found = two.json("diff", "1", "2")
    assert (found["from"], found["to"]) == (1, 2)
    assert found["changes"]["config.training.seed"] == [42, 7]
    assert len(found["metrics"]["version 2"]) == 13
    assert len(found["breaks"]["2 over 1"]) == 2


def test_diff_of_retrained_versions_says_that_nothing_else_differs(registry: Registry) -> None:
    registry.add()
    registry.add()
    printed = words(registry.call("diff", "1", "2"))
    assert "fingerprint model 1 -> model 2" in printed
    assert "Nothing else differs in what they were made of." in printed
    assert "Promoting 2 over 1: would break nobody" in printed
    assert "They are the same version." in registry.call("diff", "2", "2")


def test_diff_with_a_version_without_signature_does_not_guess(registry: Registry) -> None:
    registry.add(lambda manifest: manifest.pop("signature"))
    registry.add()
    printed = words(registry.call("diff", "1", "2"))
    assert "Promoting 2 over 1: nobody knows what it would break" in printed
    assert registry.json("diff", "1", "2")["breaks"]["2 over 1"] is None


# promote, rollback, label


@pytest.mark.parametrize("wanted", ["3", "candidate"])
def test_promote_moves_the_labels_and_says_what_to_type(three: Registry, wanted: str) -> None:
    printed = three.call("promote", wanted, "--why", "it's better, by hand")
    assert three.labels() == {"champion": 3, "previous": 2}
    assert "Version 3 is champion now." in printed
    assert "champion 2 -> 3" in printed
    assert "candidate 3 -> none" in printed
    assert "make rollback" in printed
    assert "versions show 3" in printed
    last = three.history()[-1]
    assert last["why"] == "it's better, by hand"
    assert last["who"].endswith(f"@{os.uname().nodename}")
    assert "it's better, by hand" in words(three.call("show", "3"))


def test_a_user_without_a_name_is_told_by_number(
    three: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    three.call("promote", "3")
    assert three.history()[-1]["who"] == f"user {2**31 - 7}@{os.uname().nodename}"


def test_promote_refuses_what_would_break_callers_unless_forced(two: Registry) -> None:
    told = two.call("promote", "2", code=2)
    assert "'company' is INT" in told
    assert "'trip_miles' is required" in told
    assert "--force" in told
    assert two.labels() == {"champion": 1}
    two.call("promote", "2", "--force")
    assert two.labels() == {"champion": 2, "previous": 1}


def test_rollback_goes_further_back_each_time(three: Registry) -> None:
    three.lead(3)
    first = words(three.call("rollback", "--why", "complaints"))
    assert "Version 2 is champion again, in place of version 3." in first
    assert "make rollback one further back: version 1" in first
    assert "make promote VERSION=3 the other way again" in first
    assert three.history()[-1]["why"] == "complaints"
    second = three.call("rollback")
    assert "Version 1 is champion again, in place of version 2." in second
    assert "No champion is left for a further rollback." in second
    assert three.labels()["champion"] == 1
    assert "no earlier champion" in three.call("rollback", code=2)
    assert three.labels()["champion"] == 1


def test_a_rollback_that_was_cut_off_is_finished_and_goes_no_further_back(three: Registry) -> None:
    three.lead(3)
    before = (three.folder / "models.config").read_text()
    three.call("rollback")
    (three.folder / "models.config").write_text(before)  # killed before it was written
    again = words(three.call("rollback"))
    assert "Version 2 is champion again: the rollback of 20" in again
    assert "was cut off, and is finished now. Nothing was moved." in again
    assert three.labels()["champion"] == 2
    assert 'key: "champion" value: 2' in (three.folder / "models.config").read_text()
    assert "Version 1 is champion again, in place of version 2." in three.call("rollback")


@pytest.mark.parametrize("command", ["list", "show 2", "diff 1 2", "verify", "promote 2"])
def test_every_command_catches_up_with_a_move_that_was_cut_off(
    three: Registry, command: str
) -> None:
    path = three.folder / "models.config"
    whole = path.read_text()
    path.write_text(whole.replace("value: 2", "value: 1"))
    three.call(*command.split())
    assert path.read_text() == whole


def test_rollback_tells_which_champions_are_gone(three: Registry) -> None:
    three.lead(3)
    shutil.rmtree(three.folder / "2")
    printed = three.call("rollback")
    assert "Version 1 is champion again, in place of version 3." in printed
    assert "Passed over, because they are gone: 2." in printed


def test_a_label_is_set_moved_and_taken_away(three: Registry) -> None:
    assert "Version 1 is 'shadow' now." in three.call("label", "shadow", "1")
    assert "shadow 1 -> 2" in three.call("label", "shadow", "champion")
    assert "Version 2 is 'shadow' already." in three.call("label", "shadow", "2")
    assert "shadow 2 -> none" in three.call("label", "shadow", "--remove", "--why", "done")
    assert "shadow" not in three.labels()
    assert [entry["action"] for entry in three.history()[-3:]] == ["label"] * 3


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["champion", "3"], "'champion' is not set by hand"),
        (["Shadow!", "3"], "'Shadow!' cannot be a label"),
        (["shadow", "9"], "no version or label '9'"),
        (["shadow", "--remove"], "no label 'shadow'"),
        (["shadow"], "Name the version that 'shadow' is for"),
        (["shadow", "1", "--remove"], "Name the version that 'shadow' is for"),
    ],
)
def test_labels_that_cannot_be_set(three: Registry, arguments: list[str], problem: str) -> None:
    before = three.labels()
    assert problem in three.call("label", *arguments, code=2)
    assert three.labels() == before


def test_moves_as_json(three: Registry) -> None:
    promoted = three.json("promote", "3")
    assert promoted["moved"]["champion"] == {"from": 2, "to": 3}
    assert promoted["labels"] == three.labels()
    assert three.json("rollback")["labels"] == {"champion": 2, "previous": 1}
    assert three.json("label", "mine", "3")["moved"] == {"mine": {"from": None, "to": 3}}


# verify: what it finds is tested with the registry


@pytest.mark.parametrize(
    ("name", "where", "advice"),
    [
        ("2/saved_model.pb", "version 2", "/2 from a copy, or delete it and promote another with"),
        ("history.jsonl", "labels", "from a copy; or take damaged lines out of it"),
        (".last_version", ".last_version", "the next version that is filed finds it again"),
    ],
)
def test_verify_says_what_to_do(three: Registry, name: str, where: str, advice: str) -> None:
    assert "damaged" not in three.call("verify")
    (three.folder / name).write_bytes(b"x\n")
    printed = three.call("verify", code=1).splitlines()
    (start,) = [number for number, line in enumerate(printed) if line.endswith("  damaged")]
    assert printed[start].startswith(where)
    assert advice in next(line for line in printed[start:] if line.startswith("  -> "))
    others = [line for line in printed if not line.startswith((where, " "))]
    assert others
    assert all(line.endswith(" OK") for line in others)
