import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = "/dev/shm"


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
def registry() -> Iterator[str]:
    """In memory where that is mounted: a disk takes its time for each file that is synced."""
    folder = tempfile.mkdtemp(dir=_MEMORY if os.path.ismount(_MEMORY) else None)
    yield os.path.join(folder, "registry", "taxi")
    shutil.rmtree(folder)


@pytest.fixture(params=["local", "mounted"])
def any_registry(request: pytest.FixtureRequest, tmp_path: Path, registry: str) -> str:
    """On the disk, and on a file system that is mounted into it."""
    if request.param == "local":
        return str(tmp_path / "registry" / "taxi")
    if not os.path.ismount(_MEMORY):
        pytest.skip("nothing is mounted at /dev/shm here")
    return registry
