from pathlib import Path

import pytest

from components.registry import labels
from components.registry.labels import Mover
from tests.components.inference import small_versions


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 (champion) and 2, which differ in each prediction; not to be changed."""
    folder = tmp_path_factory.mktemp("versions") / "registry" / "small"
    folder.parent.mkdir()
    for slope in (1.0, 2.0):
        small_versions.add(folder, slope)
    labels.promote(str(folder), 1, Mover("ann", ""), over=None)
    return folder
