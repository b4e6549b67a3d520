"""The TPU environment: what its lock says, and that it is made once, and again after a change."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from components.errors import PipelineStop
from components.tpu import environment

FOLDER = environment.PROJECT / "components" / "tpu" / "environment"


def _versions(lock: Path) -> dict[str, str]:
    return {p["name"]: p["version"] for p in tomllib.loads(lock.read_text())["package"]}


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Counts installations, which only make the interpreter's file; sources are a copy."""
    made: list[Path] = []

    def install(venv: Path) -> None:
        Path(environment.python(venv)).parent.mkdir(exist_ok=True)
        Path(environment.python(venv)).touch()
        made.append(venv)

    monkeypatch.setattr(environment, "_SOURCE", tmp_path / "source")
    monkeypatch.setattr(environment, "_install", install)
    shutil.copytree(FOLDER, tmp_path / "source")
    return made


def test_lock_has_versions_that_work_together() -> None:
    versions = _versions(FOLDER / "uv.lock")
    assert versions["tensorflow-tpu"].startswith("2.20.")
    assert 24 <= int(versions["libtpu"].removeprefix("0.0.")) <= 30
    ordinary = _versions(environment.PROJECT / "uv.lock")
    assert versions["keras"] == ordinary["keras"]  # weights go from one to the other
    assert not {"tfx", "tfx-bsl", "tensorflow-transform", "apache-beam"} & versions.keys()


def test_lock_is_the_answer_to_its_project_and_names_public_places_only() -> None:
    text = (FOLDER / "uv.lock").read_text()
    hosts = set(re.findall(r"https?://([^/\"]+)", text))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    assert text.count("url = ") == text.count('hash = "sha256:')
    check = ["lock", "--check", "--offline", "--no-config", "--project", str(FOLDER)]
    subprocess.run([environment._uv(), *check, "--python", sys.executable], check=True)


def test_is_made_once_and_again_after_a_change(tmp_path: Path, installs: list[Path]) -> None:
    venv = tmp_path / "venv"
    for _ in range(2):
        assert environment.make(venv) == str(venv / "bin" / "python3.11")
    assert len(installs) == 1
    with open(tmp_path / "source" / "uv.lock", "a") as lock:
        lock.write("\n")
    environment.make(venv)
    Path(environment.python(venv)).unlink()
    environment.make(venv)
    assert len(installs) == 3


def test_interrupted_installation_is_made_again(
    tmp_path: Path, installs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = environment._install

    def half(venv: Path) -> None:
        whole(venv)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, "_install", half)
        with pytest.raises(KeyboardInterrupt):
            environment.make(tmp_path / "venv")
    environment.make(tmp_path / "venv")
    assert len(installs) == 2


def test_failure_says_what_failed_and_what_to_do() -> None:
    program = "import sys; print('no space left on device'); sys.exit(3)"
    with pytest.raises(PipelineStop, match=r"(?s)could not be made.*no space left.*strategy=auto"):
        environment._run(sys.executable, "-c", program)


def test_missing_uv_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PROJECT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineStop, match="make setup"):
        environment._uv()


@pytest.mark.parametrize(
    ("has_tpu", "set_to", "expected"),
    [(False, None, "1"), (False, "0", "0"), (True, None, None), (True, "1", "1")],
)
def test_metadata_is_asked_on_a_tpu_machine_only(
    monkeypatch: pytest.MonkeyPatch, has_tpu: bool, set_to: Any, expected: Any
) -> None:
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    if set_to:
        monkeypatch.setenv("TPU_SKIP_MDS_QUERY", set_to)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setattr(environment, "has_tpu", lambda: has_tpu)
    variables = environment.variables()
    assert variables.get("TPU_SKIP_MDS_QUERY") == expected
    assert "PYTHONPATH" not in variables


def test_training_does_not_download_it(tmp_path: Path) -> None:
    with pytest.raises(PipelineStop, match="Make it with `make tpu-environment`"):
        environment.ready(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
