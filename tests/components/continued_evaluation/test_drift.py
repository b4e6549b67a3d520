"""Distributions that move, by TFX's own DistributionValidator."""

from pathlib import Path
from typing import Any

from tfx.components.distribution_validator import executor
from tfx.types import standard_artifacts
from tfx.utils import json_utils

from components.continued_evaluation import drift
from components.continued_evaluation.settings import Drift
from tests.components.evaluation import samples

COLUMNS = {"score": "FLOAT", "shop": "BYTES", "hour": "INT", "bought": "INT"}


def compare(
    folder: Path, now: list[dict[str, Any]], before: list[dict[str, Any]], settings: Drift
) -> Any:
    """What is found of rows against others."""
    anomalies = samples.artifact(standard_artifacts.ExampleAnomalies, folder / "anomalies")
    executor.Executor(samples.context(folder)).Do(
        {
            "statistics": [samples.statistics(folder / "now", test=now)],
            "baseline_statistics": [samples.statistics(folder / "before", training=before)],
        },
        {"anomalies": [anomalies]},
        {
            "distribution_validator_config": drift.validator_config(settings, COLUMNS),
            "include_split_pairs": json_utils.dumps([("test", "training")]),
        },
    )
    return drift.read(anomalies, "training")


def test_every_column_is_measured_by_what_fits_its_type(tmp_path: Path) -> None:
    before, now = samples.rows(2000), samples.rows(2000, seed=1)
    found, vanished = compare(tmp_path, now, before, Drift(columns={"hour": 0.5}))
    assert vanished == []
    assert {m.column: (m.measure, m.limit) for m in found} == {
        "score": ("jensen_shannon_divergence", 0.6),
        "hour": ("jensen_shannon_divergence", 0.5),
        "bought": ("jensen_shannon_divergence", 0.6),
        "shop": ("infinity_norm", 0.3),
    }
    assert all(m.value < 0.15 for m in found)


def test_what_moves_is_seen_and_what_is_ignored_is_not(tmp_path: Path) -> None:
    before = samples.rows(2000)
    now = [{**row, "score": row["score"] * 100, "shop": "B"} for row in samples.rows(2000, seed=1)]
    found, _ = compare(tmp_path, now, before, Drift(ignore={"hour": "the night"}))
    values = {m.column: m.value for m in found}
    assert "hour" not in values
    assert values["score"] > 0.6
    assert values["shop"] > 0.5
    assert values["bought"] < 0.01


def test_empty_columns_are_known_by_name(tmp_path: Path) -> None:
    rows = [{**row, "score": None} for row in samples.rows(50)]
    made = samples.statistics(tmp_path, test=rows)
    (file,) = Path(made.uri).rglob("FeatureStats.pb")
    assert drift.empty_columns(file.read_bytes()) == {"score"}


def test_a_column_that_is_gone_is_told(tmp_path: Path) -> None:
    now = [{**row, "score": None} for row in samples.rows(500)]
    _, [vanished] = compare(tmp_path, now, samples.rows(500), Drift())
    assert (vanished.column, vanished.kind) == ("score", "not_comparable")
    assert "compare with the champion's training" in vanished.what
