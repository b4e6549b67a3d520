import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.errors import PipelineStop
from components.inference.columns import InvalidRows, from_rows
from components.inference.model import Chosen, LoadedVersion, choose, likeliest
from components.registry import labels
from components.registry.labels import Mover
from tests.components.inference import small_versions

ROOT = Path(__file__).parents[3]
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
    unsure = loaded.predict_with("uncertain", from_rows(loaded.signature, rows))
    parts = loaded.split("uncertain", unsure)
    np.testing.assert_array_equal(parts["predictions"], np.float32([[7.0], [104.0]]))
    np.testing.assert_array_equal(parts["uncertainty"], np.float32([[1.75], [26.0]]))
    with pytest.raises(InvalidRows, match="the version explains nothing: train with"):
        loaded.predict_with("explain", from_rows(loaded.signature, rows))


def test_predict_prints_the_answer_and_nothing_else(registry: Path) -> None:
    rows = [{"key": 7, "fare": 3.0, "hour": 1}, {"key": "b", "hour": 2}]
    command = [sys.executable, "-m", "pipeline", "predict", json.dumps(rows), "--config", "taxi"]
    command += ["--version", "1", "--uncertainty", "--set=registry.model=small"]
    command.append(f"--set=workspace={registry.parents[1]}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "model": "small",
        "version": 1,
        "predictions": [
            {"key": 7, "predictions": [4.0], "uncertainty": [1.0]},
            {"key": "b", "predictions": [3.0], "uncertainty": [0.75]},
        ],
    }


def test_a_damaged_version_says_so(registry: Path) -> None:
    (registry / "1" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(PipelineStop, match=r"/1 cannot be loaded: .*versions verify"):
        LoadedVersion(Chosen(str(registry), 1))


def test_the_likeliest_class_by_name() -> None:
    several = np.float32([[0.2, 0.5, 0.3], [0.9, 0.1, 0]])
    names, problem = ["a", "b", "c"], "multiclass"
    assert likeliest({"classes": names, "problem": problem}, several) == ["b", "a"]
    two = {"classes": [10, 20], "problem": "binary"}
    assert likeliest(two, np.float32([[0.4], [0.6]])) == [10, 20]
    assert likeliest({"classes": None}, np.float32([[0.4]])) is None
    both = np.float32([[0.6, 0.1, 0.9], [0.1, 0.2, 0.3]])
    assert likeliest({"classes": names, "problem": "multilabel"}, both) == [["a", "c"], []]
