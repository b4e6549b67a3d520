"""The list of interrupted trainings: whole folders, damaged ones, and none."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import checkpoints, loading

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
    command = [sys.executable, "-m", "pipeline", "checkpoints", f"--set=workspace={workspace}"]
    done = subprocess.run(
        [*command, *arguments], cwd=loading.PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_rows_come_newest_first_with_what_tells_them_apart(tmp_path: Path, root: Path) -> None:
    make_checkpoint(root, "0" * 16, (600,), age=3 * 86_400)
    make_checkpoint(root, "1" * 16, (600, 1200), age=200)
    lines = _listed(tmp_path).splitlines()
    assert lines[0].split() == ["key", "step", "size", "written", "(UTC)", "of"]
    newer, older = (line for line in lines if line[:1] in ("0", "1"))
    assert newer.startswith(f"{'1' * 16}    1,200 of 4,000 ")
    assert older.startswith(f"{'0' * 16}      600 of 4,000 ")
    assert time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3 * 86_400)) in older
    text = " ".join(" ".join(lines).split())
    for fact in ("small, 2026-11-23", "epochs 6", "rate 0.02", "seed 3"):
        assert fact in text
    assert max(map(len, lines)) <= 100


def test_size_is_that_of_the_whole_folder(root: Path) -> None:
    key = make_checkpoint(root, "a" * 16, (600,), age=0)
    before = checkpoints.find(root)[0].size
    (key / "rows-0").mkdir()
    (key / "rows-0" / "shard").write_bytes(b"0" * 1_000_000)
    assert checkpoints.find(root)[0].size - before == pytest.approx(1_000_000, rel=0.02)


@pytest.mark.parametrize("content", [None, b"", b'{"step": ', b"[1]", b"\xff\xfe\x00", b"{}"])
def test_damaged_checkpoint_is_listed_as_unreadable(
    tmp_path: Path, root: Path, content: bytes | None
) -> None:
    key = make_checkpoint(root, "b" * 16, (600, 1200), age=0)
    for path in (key / "step-000001200" / "progress.json", key / "identity.json"):
        path.unlink() if content is None else path.write_bytes(content)
    (row,) = checkpoints.find(root)
    assert (row.step, row.steps, row.damaged) == (600, 4000, 1)
    assert "600 of 4,000 (1 unreadable)" in _listed(tmp_path)
    (key / "step-000000600" / "progress.json").write_text("nonsense")
    line = _listed(tmp_path).splitlines()[1]
    assert line.startswith("b" * 16)
    assert "unreadable" in line


def test_training_without_a_checkpoint_yet_and_foreign_folders(root: Path) -> None:
    make_checkpoint(root, "c" * 16, (), age=0)
    (root / ".gc-dddddddddddddddd").mkdir()
    (root / "notes").mkdir()
    (root / ("e" * 16)).write_text("a file")
    (found,) = checkpoints.find(root)
    assert (found.key, found.step, found.damaged) == ("c" * 16, None, 0)


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


@pytest.mark.parametrize("module", ["checkpoints", "gc"])
def test_listing_does_not_load_tensorflow(module: str) -> None:
    code = f"import sys; import pipeline.{module}; print(sorted({{'tensorflow', 'tfx', "
    code += "'apache_beam'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=loading.PROJECT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
