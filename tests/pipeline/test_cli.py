"""The door: helpful without loading anything heavy, and clear about mistakes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import loading

HEAVY = ("tensorflow", "tfx", "apache_beam")


def _pipeline(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=loading.PROJECT, capture_output=True, text=True)


def test_help_lists_the_commands_in_groups() -> None:
    done = _pipeline("--help")
    assert done.returncode == 0
    for word in (
        "Daily",
        "Data and settings",
        "Models",
        "Housekeeping",
        "run",
        "gc",
    ):
        assert word in done.stdout


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys; from pipeline import cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=loading.PROJECT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_config_prints_the_whole_configuration() -> None:
    done = _pipeline("config", "--set", "training.epochs=77")
    assert done.returncode == 0
    assert "  epochs: 77\n" in done.stdout
    assert done.stdout.startswith("name: ")


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "config",
        "schema",
        "checkpoints",
        "gc",
    ],
)
def test_mistakes_end_with_2_and_no_traceback(command: str) -> None:
    done = _pipeline(command, "--set", "training.epoch=3")
    assert done.returncode == 2
    assert "did you mean 'epochs'?" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.fixture
def door(tmp_path: Path) -> Path:
    """A project that has nothing but its door."""
    (tmp_path / "pipeline").mkdir()
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(loading.PROJECT / "pipeline" / name, tmp_path / "pipeline")
    return tmp_path


def test_any_python_goes_on_with_the_one_in_venv(door: Path) -> None:
    own = door / ".venv" / "bin" / "python3.11"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\necho "$@"\n')
    own.chmod(0o755)
    (door / ".venv" / "bootstrap.stamp").touch()
    command = [sys.executable, "-m", "pipeline", "predict", '{"fare": 1}']
    done = subprocess.run(command, cwd=door, capture_output=True, text=True)
    assert done.stdout == '-m pipeline predict {"fare": 1}\n'


def test_without_packages_it_says_what_to_type(door: Path) -> None:
    command = [sys.executable, "-S", "-m", "pipeline", "run"]
    done = subprocess.run(command, cwd=door, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "make setup" in done.stderr
