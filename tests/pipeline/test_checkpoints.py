"""The list of interrupted trainings: whole folders, damaged ones, and none."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import gc
from pipeline.cli import app

HYPERPARAMETERS = {
    "model": {"hidden": [8]},
    "training": {"epochs": 6, "steps": None, "seed": 3, "learning_rate": {"initial": 0.02}},
}


def make_checkpoint(root: Path, key: str, steps: tuple[int, ...], age: float) -> Path:
    """A training's folder as the trainer writes it, its files `age` seconds old."""
    identity = {
        "key": key,
        "pipeline": "small",
        "started": "2026-11-23T04:05:06+00:00",
        "identity": {"data": "ab", "hyperparameters": HYPERPARAMETERS, "replicas": 1},
    }
    _write(root / key / "identity.json", identity)
    for step in steps:
        folder = root / key / f"step-{step:09}"
        _write(folder / "progress.json", {"step": step, "steps": 4000, "files": {}})
        (folder / "variables.data-00000-of-00001").write_bytes(b"0" * 50_000)
    set_age(root / key, age)
    return root / key


def set_age(path: Path, seconds: float) -> None:
    for file in [path, *path.rglob("*")]:
        os.utime(file, (time.time() - seconds,) * 2)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _listed(workspace: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["checkpoints", f"--set=workspace={workspace}", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_rows_come_newest_first_with_what_tells_them_apart(tmp_path: Path, root: Path) -> None:
    make_checkpoint(root, "0" * 16, (600,), age=3 * 86_400)
    make_checkpoint(root, "1" * 16, (600, 1200), age=200)
    lines = _listed(tmp_path).splitlines()
    assert lines[0].split() == ["key", "of", "step", "size", "written", "(UTC)"]
    newer, older = (line for line in lines if line[:1] in ("0", "1"))
    assert newer.startswith("1" * 16)
    assert "1,200 of 4,000" in newer
    assert "600 of 4,000" in older
    assert time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3 * 86_400)) in older
    assert "small, 2026-11-23 04:05 UTC, epochs 6, seed 3" in newer


def test_size_is_that_of_the_whole_folder(root: Path) -> None:
    key = make_checkpoint(root, "a" * 16, (600,), age=0)
    before = gc.trainings(root)[0]["size"]
    (key / "rows-0").mkdir()
    (key / "rows-0" / "shard").write_bytes(b"0" * 1_000_000)
    assert gc.trainings(root)[0]["size"] - before == pytest.approx(1_000_000, rel=0.02)


@pytest.mark.parametrize("content", [None, b'{"step": ', b"[1]"])
def test_damaged_checkpoint_is_listed_as_unreadable(
    tmp_path: Path, root: Path, content: bytes | None
) -> None:
    key = make_checkpoint(root, "b" * 16, (600, 1200), age=0)
    for path in (key / "step-000001200" / "progress.json", key / "identity.json"):
        path.unlink() if content is None else path.write_bytes(content)
    assert "600 of 4,000 (1 unreadable)" in _listed(tmp_path)
    (key / "step-000000600" / "progress.json").write_text("nonsense")
    assert "none yet (2 unreadable)" in _listed(tmp_path)


def test_training_without_a_checkpoint_yet_and_foreign_folders(root: Path) -> None:
    make_checkpoint(root, "c" * 16, (), age=0)
    (root / ".gc-dddddddddddddddd").mkdir()
    (root / "notes").mkdir()
    (root / ("e" * 16)).write_text("a file")
    (found,) = gc.trainings(root)
    assert (found["key"], found["step"], found["damaged"]) == ("c" * 16, None, 0)


def test_json_holds_everything(tmp_path: Path, root: Path) -> None:
    key = make_checkpoint(root, "f" * 16, (600, 1200), age=0)
    (found,) = json.loads(_listed(tmp_path, "--json"))
    assert found["folder"] == str(key)
    assert (found["key"], found["step"], found["steps"]) == ("f" * 16, 1200, 4000)
    assert found["identity"]["identity"]["hyperparameters"] == HYPERPARAMETERS


def test_none_says_when_there_are_some(tmp_path: Path) -> None:
    assert "leaves them there when it is interrupted" in _listed(tmp_path / "nowhere")
    assert json.loads(_listed(tmp_path, "--json")) == []
    assert list(tmp_path.iterdir()) == []
