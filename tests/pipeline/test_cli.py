"""The door: helpful without loading anything heavy, and clear about mistakes."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from components.errors import PipelineStop
from pipeline import loading
from pipeline.cli import app
from pipeline.command_line import command

HEAVY = ("tensorflow", "tfx", "apache_beam", "pydantic", "yaml", "duckdb", "pandas")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_help_lists_the_commands_in_groups_and_loads_nothing_heavy() -> None:
    code = f"""if True:
        import sys
        from pipeline.cli import app
        try:
            app(["--help"])
        except SystemExit as end:
            print(end.code, [m for m in {HEAVY} if m in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=loading.PROJECT, capture_output=True, text=True
    )
    for word in ("Daily", "Data and settings", "Models", "Housekeeping", "run", "gc"):
        assert word in done.stdout
    assert done.stdout.endswith("0 []\n"), done.stdout + done.stderr


def test_config_prints_the_whole_configuration() -> None:
    done = call("config", "--set", "training.epochs=77")
    assert done.exit_code == 0
    assert "  epochs: 77\n" in done.stdout
    assert done.stdout.startswith("name: ")


@pytest.mark.parametrize("name", ["config", "checkpoints", "versions list"])
def test_mistakes_end_with_2_and_no_traceback(name: str) -> None:
    done = call(*name.split(), "--set", "training.epoch=3")
    assert done.exit_code == 2
    assert "did you mean 'epochs'?" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PipelineStop("Correct it."), 2, "Correct it."),
        (OSError(errno.ENOSPC, "No space left", "/w"), 2, "The disk of /w is full. Free some"),
        (PermissionError(errno.EACCES, "Permission denied", "/w"), 2, "/w cannot be used: Perm"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_whatever_stops_a_command_it_ends_the_same_way(
    error: BaseException, code: int, words: str
) -> None:
    own = typer.Typer()

    @command(own)
    def stop() -> None:
        raise error

    done = CliRunner().invoke(own, [])
    assert (done.exit_code, done.stderr.strip()[: len(words)]) == (code, words)


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
