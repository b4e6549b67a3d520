from pathlib import Path

import numpy as np
import pytest

from components.errors import PipelineStop
from components.inference.columns import from_rows
from components.inference.model import Chosen, LoadedVersion, choose, likeliest
from components.registry import labels
from components.registry.labels import Mover
from tests.components.inference import small_versions

ANN = Mover("ann", "")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    folder = tmp_path / "registry" / "small"
    folder.parent.mkdir()
    for slope in (1.0, 2.0):
        small_versions.add(folder, slope)
    return folder


def test_a_version_is_chosen_by_number_or_label(registry: Path) -> None:
    labels.promote(str(registry), 2, ANN, over=None)
    labels.assign(str(registry), "shadow", 1, ANN)
    assert choose(str(registry)).version == 2
    assert choose(str(registry), "shadow") == choose(str(registry), 1) == choose(str(registry), "1")
    assert choose(str(registry)).name == "small"


@pytest.mark.parametrize("wanted", ["champion", "9", "shadow"])
def test_a_version_that_is_not_there(registry: Path, wanted: str) -> None:
    labels.assign(str(registry), "mine", 1, ANN)
    with pytest.raises(
        PipelineStop, match=rf"no version or label '{wanted}' .*Versions: 1, 2. Labels: mine \(1\)"
    ):
        choose(str(registry), wanted)


def test_no_versions_at_all(tmp_path: Path) -> None:
    with pytest.raises(PipelineStop, match=r"no versions in .* train one first"):
        choose(str(tmp_path))


def test_rows_in_predictions_out(registry: Path) -> None:
    loaded = LoadedVersion(Chosen(str(registry), 2))
    rows = [{"fare": 3.0, "hour": 1}, {"hour": 2, "company": "x"}]
    found = loaded.predict(from_rows(loaded.signature, rows))
    np.testing.assert_array_equal(found, np.float32([[7.0], [104.0]]))
    assert found.dtype == np.float32
    assert loaded.outputs == 1
    assert loaded.predict(from_rows(loaded.signature, [])).shape == (0, 1)


def test_a_damaged_version_says_so(registry: Path) -> None:
    (registry / "1" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(PipelineStop, match=r"/1 cannot be loaded: .*versions verify"):
        LoadedVersion(Chosen(str(registry), 1))


def test_the_likeliest_class_by_name() -> None:
    several = np.float32([[0.2, 0.5, 0.3], [0.9, 0.1, 0]])
    assert likeliest({"classes": ["a", "b", "c"]}, several) == ["b", "a"]
    assert likeliest({"classes": [10, 20]}, np.float32([[0.4], [0.6]])) == [10, 20]
    assert likeliest({"classes": None}, np.float32([[0.4]])) is None
