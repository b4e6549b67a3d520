import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder like a SavedModel, with files large enough to be caught halfway."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    (folder / "saved_model.pb").write_bytes(os.urandom(2_000_000))
    (folder / "variables" / "variables.index").write_bytes(os.urandom(100_000))
    return str(folder)


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return str(tmp_path / "registry" / "taxi")


@pytest.fixture(params=["local", "mounted"])
def any_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """On the disk, and on a file system that is mounted into it."""
    if request.param == "local":
        yield str(tmp_path / "registry" / "taxi")
        return
    if not os.path.ismount("/dev/shm"):
        pytest.skip("nothing is mounted at /dev/shm here")
    folder = tempfile.mkdtemp(dir="/dev/shm")
    yield os.path.join(folder, "taxi")
    shutil.rmtree(folder)
