"""Make's variables reach the command as they were typed, and never the shell."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.parts import PROJECT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefiles, a set-up that does nothing, and a Python that prints what it is given."""
    for name in ("Makefile", *(str(p.relative_to(PROJECT)) for p in PROJECT.glob("*/*/part.mk"))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / "pipeline" / "setup").mkdir(exist_ok=True)
    (tmp_path / "pipeline" / "setup" / "bootstrap.py").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("text", ["x'; touch F; echo '", 'a "b" `touch F`', "5 $HOME", "*"])
def test_a_value_arrives_as_it_is(folder: Path, text: str) -> None:
    assert make(folder, "config", f"CONFIG={text}")[-2:] == ["--config", text]
    assert make(folder, "rollback", f"WHY={text}")[-2:] == ["--why", text]
    assert not (folder / "F").exists()


def test_each_setting_is_one_word(folder: Path) -> None:
    arguments = make(folder, "run-local", "SET=a=1 b='*'")
    assert arguments[2:] == ["run", "--set", "a=1", "--set", "b='*'"]
