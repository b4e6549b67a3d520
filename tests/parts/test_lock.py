"""A pruned `uv.lock` is the one that uv itself would write."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from pipeline import bootstrap
from pipeline.parts import lock, marks
from tests.parts import clones

LOCK = (clones.PROJECT / "uv.lock").read_text()
PYPROJECT = (clones.PROJECT / "pyproject.toml").read_text()
REMOVALS = [(name,) for name in sorted(marks.named(PYPROJECT, "pyproject.toml"))] + [
    tuple(sorted(marks.named(PYPROJECT, "pyproject.toml")))
]


def _uv(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    if not os.path.exists(bootstrap.UV):
        pytest.skip("there is no uv here")
    python = Path(bootstrap.VENV, "bin", "python")
    command = [
        bootstrap.UV,
        "lock",
        *arguments,
        "--offline",
        "--no-config",
        "--python",
        str(python),
    ]
    kept = {k: v for k, v in os.environ.items() if "INDEX" not in k}
    return subprocess.run(
        command, cwd=folder, env=kept, capture_output=True, text=True, check=False
    )


def _project(folder: Path, removed: tuple[str, ...]) -> str:
    """Writes both files, the lock pruned; returns that."""
    pyproject = marks.without(PYPROJECT, removed, "pyproject.toml")
    pruned = lock.pruned(LOCK, pyproject)
    (folder / "pyproject.toml").write_text(pyproject)
    (folder / "README.md").touch()
    (folder / "uv.lock").write_text(pruned)
    return pruned


def test_nothing_changes_when_nothing_goes() -> None:
    assert lock.pruned(LOCK, PYPROJECT) == LOCK


@pytest.mark.parametrize("removed", REMOVALS, ids="-".join)
def test_uv_takes_the_lock_and_would_not_change_it(
    tmp_path: Path, removed: tuple[str, ...]
) -> None:
    pruned = _project(tmp_path, removed)
    checked = _uv(tmp_path, "--check")
    assert checked.returncode == 0, checked.stderr
    assert _uv(tmp_path).returncode == 0
    assert (tmp_path / "uv.lock").read_text() == pruned


def test_uv_would_have_written_the_same_from_the_old_lock(tmp_path: Path) -> None:
    """It resolves anew, for which it needs the packages' metadata: here, if it has them."""
    pruned = _project(tmp_path, REMOVALS[-1])
    (tmp_path / "uv.lock").write_text(LOCK)
    resolved = _uv(tmp_path)
    if "not found in the cache" in resolved.stderr or "network was disabled" in resolved.stderr:
        pytest.skip("uv has not kept the packages' metadata")
    assert resolved.returncode == 0, resolved.stderr
    assert (tmp_path / "uv.lock").read_text() == pruned


def test_what_something_else_needs_stays() -> None:
    without = marks.without(PYPROJECT, REMOVALS[-1], "pyproject.toml")
    left = lock.packages(lock.pruned(LOCK, without))
    for line in tomllib.loads(without)["project"]["dependencies"]:
        assert line.partition(">")[0].partition("=")[0].lower() in left
    gone = lock.packages(LOCK).keys() - left
    assert {"kfp", "kserve", "plotly"} & lock.packages(LOCK).keys() <= gone
    assert not gone & {"grpcio", "protobuf", "tensorflow", "google-cloud-storage"}
