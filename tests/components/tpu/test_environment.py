"""The TPU environment: what its lock says, and that no training runs without it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from components.errors import PipelineStop
from components.tpu import environment

FOLDER = environment.PROJECT / "components" / "tpu" / "environment"


def _versions(lock: Path) -> dict[str, str]:
    return {p["name"]: p["version"] for p in tomllib.loads(lock.read_text())["package"]}


def test_lock_has_versions_that_work_together() -> None:
    versions = _versions(FOLDER / "uv.lock")
    assert versions["tensorflow-tpu"].startswith("2.20.")
    assert 24 <= int(versions["libtpu"].removeprefix("0.0.")) <= 30
    ordinary = _versions(environment.PROJECT / "uv.lock")
    assert versions["keras"] == ordinary["keras"]  # weights go from one to the other
    assert not {"tfx", "tfx-bsl", "tensorflow-transform", "apache-beam"} & versions.keys()


def test_without_it_a_training_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "VENV", tmp_path)
    with pytest.raises(PipelineStop, match="Make it with `make tpu-environment`"):
        environment.ready()
    (tmp_path / "uv.lock").write_text("of another lock")
    with pytest.raises(PipelineStop, match="not as its lock says"):
        environment.ready()


@pytest.mark.prove
def test_the_core_needs_no_package_that_is_not_there() -> None:
    """It is imported where the packages of TFX cannot be."""
    packages = ("tfx", "tfx_bsl", "tensorflow_transform", "apache_beam", "pyarrow", "pydantic")
    program = (
        f"import sys; sys.modules |= dict.fromkeys({packages}); "
        "import components.trainer.core.worker, components.trainer.core.job"
    )
    subprocess.run([sys.executable, "-c", program], cwd=environment.PROJECT, check=True)
