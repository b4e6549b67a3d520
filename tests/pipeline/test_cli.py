"""The door: helpful without loading anything heavy, and clear about mistakes."""

import subprocess
import sys

import pytest

from pipeline import loading

HEAVY = ("tensorflow", "tfx", "apache_beam", "pydantic", "yaml")


def _pipeline(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=loading.PROJECT, capture_output=True, text=True)


def test_help_lists_the_commands_in_groups() -> None:
    done = _pipeline("--help")
    assert done.returncode == 0
    for word in (
        "Daily",
        "Training",
        "Data and settings",
        "Models",
        "Serving",
        "Housekeeping",
        "run",
        "gc",
        "check-tpu",
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
    "command", ["run", "config", "schema", "checkpoints", "gc", "check-tpu", "serve"]
)
def test_mistakes_end_with_2_and_no_traceback(command: str) -> None:
    done = _pipeline(command, "--set", "training.epoch=3")
    assert done.returncode == 2
    assert "did you mean 'epochs'?" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
