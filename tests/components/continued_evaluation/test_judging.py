"""Who is judged, beside whom, and compared with which statistics: on a real registry."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfx import types
from tfx.types import standard_artifacts

from components.continued_evaluation import history, judging
from components.continued_evaluation.evidence import Judged
from components.errors import PipelineStop
from components.registry import labels, store
from tests.components.continued_evaluation.test_history import record
from tests.components.evaluation import samples

BY = labels.Mover("test", "test")


def fresh(folder: Path, span: int, fingerprint: str = "new") -> types.Artifact:
    examples = samples.artifact(standard_artifacts.Examples, folder)
    examples.set_int_custom_property("span", span)
    examples.set_string_custom_property("input_fingerprint", fingerprint)
    return examples


class Registry:
    """Versions of a model, each with what a push files beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, str(folder / "registry" / "small")
        samples.model(folder / "rule", 0.1)

    def add(self, slope: float, spans: list[int], fingerprint: str = "old") -> int:
        """Files a model and promotes it."""
        made, statistics = self.folder / f"made {slope}", self.folder / f"statistics {slope}"
        samples.model(made, slope)
        samples.statistics(statistics, train=samples.rows(50, seed=int(slope)))
        manifest = {
            "fingerprint": str(slope),
            "signature": {"inputs": {}, "ignored": [], "problem": "binary", "classes": None},
            "data": [{"spans": json.dumps(spans), "input_fingerprint": fingerprint}],
        }
        extra = {
            "statistics": str(statistics / "Split-train"),
            "heuristic": str(self.folder / "rule" / "Format-Serving"),
        }
        version = store.add_version(self.model, str(made / "Format-Serving"), manifest, extra)
        champion = store.read_labels(self.model).get(store.CHAMPION)
        labels.promote(self.model, version, BY, champion)
        return version

    def look(self, span: int, fingerprint: str = "new") -> Judged:
        return judging.find(self.model, fresh(self.folder / "fresh", span, fingerprint))

    def bring(self, span: int) -> dict[str, Any]:
        """Runs the component; gives its outputs."""
        folder = self.folder / f"out {span}"
        examples = fresh(folder / "data", span)
        outputs: dict[str, Any] = {
            name: [samples.artifact(standard_artifacts.Model, folder / name)]
            for name in ("champion", "baseline")
        }
        spec = judging.JudgedModels.EXECUTOR_SPEC.executor_class
        settings = {"registry": str(self.folder / "registry"), "model_name": "small", "code": ""}
        spec(samples.context(folder)).Do({"examples": [examples]}, outputs, settings)
        return {name: Path(found[0].uri) for name, found in outputs.items()}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_the_champion_alone_is_judged_beside_the_heuristic(registry: Registry) -> None:
    registry.add(1.0, [1, 2])
    assert registry.look(3) == Judged(champion=1, previous=None, before=None)
    made = registry.bring(3)
    assert json.loads((made["baseline"] / "baseline.json").read_text())["kind"] == "heuristic"
    assert (made["champion"] / "Format-Serving" / "saved_model.pb").is_file()


def test_the_version_before_is_the_baseline(registry: Registry) -> None:
    registry.add(1.0, [1])
    registry.add(2.0, [2])
    assert registry.look(3) == Judged(champion=2, previous=1, before=None)
    made = registry.bring(3)
    found = json.loads((made["baseline"] / "baseline.json").read_text())
    assert (found["kind"], found["version"]) == ("champion", 1)
    serving = made["baseline"] / "Format-Serving" / "saved_model.pb"
    assert serving.read_bytes() == (Path(registry.model) / "1" / "saved_model.pb").read_bytes()


@pytest.mark.parametrize("file", ["saved_model.pb", store.MANIFEST])
def test_a_version_before_that_is_damaged_is_passed_over_with_a_warning(
    registry: Registry, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    registry.add(1.0, [1])
    registry.add(2.0, [2])
    (Path(registry.model) / "1" / file).write_text("{")
    assert registry.look(3) == Judged(champion=2, previous=None, before=None)
    assert "Version 1, the champion before, is damaged and passed over" in caplog.text


def test_the_span_before_is_the_newest_that_is_trusted(registry: Registry) -> None:
    registry.add(1.0, [1])
    hashes = np.zeros(1, np.uint64)
    anomaly = {"column": "fare", "kind": "X", "what": "is wrong"}
    for span in (4, 2, 3):
        history.add(registry.model, record(span), f"stats {span}".encode(), hashes)
    history.add(registry.model, record(5, anomalies=[anomaly]), b"broken", hashes)
    assert registry.look(6).before == record(4).id
    assert registry.look(3).before == record(2).id
    assert registry.look(2).before is None


def test_what_a_model_was_trained_on_is_not_fresh(registry: Registry) -> None:
    registry.add(1.0, [1, 2])
    with pytest.raises(PipelineStop, match="was trained on span 2 itself"):
        registry.look(2)
    # Data without spans is always span 0: there only other files are fresh.
    registry.add(2.0, [0], "these files")
    with pytest.raises(PipelineStop, match="nothing fresh"):
        registry.look(0, "these files")
    assert registry.look(0, "other files").champion == 2


def test_without_a_whole_champion_there_is_a_clear_word(registry: Registry) -> None:
    with pytest.raises(PipelineStop, match=r"There is no champion in .* Versions: none"):
        registry.look(3)
    registry.add(1.0, [1])
    version = Path(registry.model) / "1"
    (version / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(PipelineStop, match=r"is damaged: .*saved_model.pb was changed"):
        registry.look(3)
    shutil.rmtree(version)
    with pytest.raises(PipelineStop, match=r"version 1, which is not in .*: restore its"):
        registry.look(3)


def test_a_version_of_an_older_release_is_told_apart(registry: Registry, tmp_path: Path) -> None:
    manifest = {"fingerprint": "f", "data": [{"spans": "[1]"}]}
    saved = str(tmp_path / "rule" / "Format-Serving")
    labels.promote(registry.model, store.add_version(registry.model, saved, manifest), BY, None)
    with pytest.raises(PipelineStop, match="filed without its training statistics"):
        registry.bring(3)
