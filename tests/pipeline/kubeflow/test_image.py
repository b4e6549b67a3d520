"""What can be said of the image without building it: its size, its parts, and the smoke test."""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docker.utils import build

from pipeline.loading import PROJECT
from pipeline.setup import bootstrap

LIMIT = 4e9
"""Bytes that the CPU image may take."""
BASE = 130e6
"""Bytes of python:3.11-slim-trixie: about its published size, not measured here."""
STAGES = re.findall(
    r"^FROM (\S+)(?: AS (\S+))?\n(.*?)(?=^FROM |\Z)",
    re.sub(r"\\\n|^#.*\n", "", (PROJECT / "Dockerfile").read_text(), flags=re.MULTILINE),
    re.MULTILINE | re.DOTALL,
)


def stage(name: str) -> str:
    """The instructions of a stage, one a line; "" is the last."""
    [found] = [text for _, as_, text in STAGES if as_ == name]
    return found


@pytest.fixture(scope="module")
def closure() -> list[str]:
    """The distributions that the image's `uv sync` installs, by the flags that it has there."""
    if not os.path.exists(bootstrap.UV):
        pytest.skip("there is no uv here, which reads uv.lock")
    [groups] = re.findall(r'RUN groups="(.*?)"', stage("packages"))
    [flags] = re.findall(r"uv sync --locked (.*?)\$groups", stage("packages"))
    command = [bootstrap.UV, "export", "--offline", "--frozen", "--no-hashes", "--no-header"]
    done = subprocess.run(
        [*command, "--no-annotate", *flags.split(), *groups.split()],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.partition("==")[0] for line in done.stdout.splitlines()]


def test_the_image_is_below_four_gigabytes(closure):
    files = {path for name in closure for path in files_of(name)}
    assert len(files) > 10_000
    assert BASE + sum(map(size, files)) < LIMIT


def files_of(name: str) -> list[str]:
    """The installed files of a distribution, without bytecode."""
    listed = importlib.metadata.distribution(name).files or []
    paths = [os.path.normpath(str(each.locate())) for each in listed]
    return [path for path in paths if os.path.isfile(path) and not path.endswith(".pyc")]


def size(path: str) -> int:
    """Bytes of a file and its bytecode; where that was never written, as much as the source."""
    own = os.path.getsize(path)
    if not path.endswith(".py"):
        return own
    bytecode = importlib.util.cache_from_source(path)
    return own + (os.path.getsize(bytecode) if os.path.exists(bytecode) else own)


def test_what_only_development_needs_is_not_in_it(closure):
    assert {"tfx", "kfp", "kserve"} <= set(closure)
    # scikit-learn, which is among the development's packages too, is one of TFX's own.
    assert not {"pytest", "hypothesis", "mypy", "ruff", "import-linter"} & set(closure)


def test_only_what_a_run_needs_goes_in(tmp_path):
    copied = {
        source
        for _, _, text in STAGES
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
        for source in sources.split()
    }
    folders = {name for name in copied if (PROJECT / name).is_dir()}
    wanted = {f"{name}/file" for name in folders} | (copied - folders)
    others = (
        *(".env", "id_rsa", ".git/config", ".venv/bin/python", "workspace/registry/labels.json"),
        *("build/taxi.yaml", "tests/small.py", "configs/__pycache__/old.pyc", "data/rows.csv"),
        *("components/deep/__pycache__/old.pyc",),
    )
    for name in (*wanted, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    sent = build.exclude_paths(str(tmp_path), patterns)
    assert {name for name in sent if (tmp_path / name).is_file()} == wanted
    assert {"pyproject.toml", "uv.lock", "components", "configs", "pipeline"} <= copied


def test_new_code_leaves_the_layers_of_the_packages_as_they_are():
    packages, steps = stage("packages"), stage("steps")
    before_install = packages[: packages.index("uv sync")]
    assert set(re.findall(r"^COPY (.*) \S+$", before_install, re.MULTILINE)) == {
        "pipeline/setup/requirements.txt",
        "pyproject.toml uv.lock",
    }
    assert re.findall(r"^COPY (\S+)", steps, re.MULTILINE)[0] == "--from=packages"


def test_versions_are_locked_and_hashes_checked():
    packages = stage("packages")
    assert "pip install --no-cache-dir --require-hashes" in packages
    assert "uv sync --locked" in packages
    assert STAGES[0][0] == "python:${PYTHON_TAG}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"


def test_bytecode_is_there_before_the_smoke_test_runs_as_another_user():
    assert "--compile-bytecode" in stage("packages")
    steps = stage("steps")
    compiled = steps.index("python -m compileall -q pipeline components")
    user = re.search(r"^USER (\d+):\d+$", steps, re.MULTILINE)
    assert user.start() > compiled
    assert int(user[1]) > 0
    assert steps.index("python -m pipeline.kubeflow.smoke") > user.start()


def smoke(**variables: str) -> "subprocess.CompletedProcess[str]":
    """The image's smoke test, here."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.kubeflow.smoke"],
        cwd=PROJECT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.prove
def test_the_smoke_test_passes_here(tmp_path):
    """Also without git, which python:slim has not and of which the graph asks the commit."""
    done = smoke(PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {"Trainer            can be made", "RegistryPush       can be made"} <= {*lines}


@pytest.mark.prove
def test_the_smoke_test_finds_an_import_error_that_a_package_hides(tmp_path: Path):
    """Without nltk, tensorflow_model_analysis can be imported, and lacks its names."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['nltk'] = None\n")
    done = smoke(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "no attribute 'default_eval_shared_model'" in done.stderr
