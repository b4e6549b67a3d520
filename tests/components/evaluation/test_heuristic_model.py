import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.errors import PipelineStop
from components.evaluation.heuristic import Buckets
from components.evaluation.heuristic_model import Column, Heuristic, export, learn, mine
from components.features.table import FeatureTable
from tests.components.evaluation import samples


def learned(
    folder: Path, rule: str, rows: list[dict[str, Any]], table: FeatureTable = samples.TABLE
) -> Heuristic:
    data = samples.examples(folder, train=rows)
    return learn(rule, table, samples.TYPES, [f"{data.uri}/Split-train"])


def table(**changes: Any) -> FeatureTable:
    return FeatureTable.model_validate({**samples.TABLE.model_dump(), "exclude": {}, **changes})


def served(heuristic: Heuristic, folder: Path, used: FeatureTable, rows: list[Any]) -> Any:
    export(heuristic, used, samples.TYPES, str(folder))
    signatures = tf.saved_model.load(str(folder)).signatures
    examples = tf.constant([samples.encode(row) for row in rows])
    return {name: next(iter(call(examples).values())).numpy() for name, call in signatures.items()}


def test_a_rule_predicts_the_training_rate_of_each_side_and_of_missing(tmp_path: Path) -> None:
    rows = samples.rows(1_000)
    heuristic = learned(tmp_path / "data", "shop == 'A'", rows)
    sides = [
        [row["bought"] for row in rows if row["shop"] not in ("A", None)],
        [row["bought"] for row in rows if row["shop"] == "A"],
        [row["bought"] for row in rows if row["shop"] is None],
    ]
    assert heuristic.rows.tolist() == [len(side) for side in sides]
    overall = sum(sum(side) for side in sides) / 1_000
    expected = [(sum(side) + overall) / (len(side) + 1) for side in sides]
    assert heuristic.predictions[:, 0] == pytest.approx(expected)
    unseen = [{"shop": "A"}, {"shop": "never seen"}, {"shop": ""}, {}]
    got = served(heuristic, tmp_path / "model", samples.TABLE, unseen)
    assert set(got) == {"serving_default"}
    assert got["serving_default"].shape == (4, 1)
    order = [expected[1], expected[0], expected[2], expected[2]]
    assert got["serving_default"][:, 0] == pytest.approx(order)


def test_a_side_without_rows_predicts_the_overall_rate_and_none_is_certain(tmp_path: Path) -> None:
    rows = [{"shop": "A", "bought": int(number < 3)} for number in range(4)]
    heuristic = learned(tmp_path, "shop == 'B'", rows)
    assert heuristic.predictions[:, 0] == pytest.approx([0.75, 0.75, 0.75])


def test_classes_get_their_shares(tmp_path: Path) -> None:
    used = table(problem="multiclass", label=samples.MOODS)
    rows = [
        {"hour": hour, "mood": mood}
        for hour, moods in ((1, "sad sad calm"), (20, "glad"), (2, "angry"))
        for mood in moods.split()
    ]
    heuristic = learned(tmp_path / "data", "hour < 12", rows, used)
    overall = np.array([2, 1, 1]) / 4
    below, above = (np.array([2, 1, 0]) + overall) / 4, (np.array([0, 0, 1]) + overall) / 2
    assert heuristic.rows.tolist() == [3, 1, 0]  # a class that is not in the table is left out
    assert heuristic.predictions == pytest.approx(np.stack([below, above, overall]))
    got = served(heuristic, tmp_path / "model", used, [{"hour": 3, "mood": "glad"}, rows[-1]])
    assert got["serving_default"] == pytest.approx(np.stack([below, below]))
    assert got["label_index"].tolist() == [[2.0], [-1.0]]


def test_regression_predicts_the_mean(tmp_path: Path) -> None:
    used = table(problem="regression", label={"column": "score"}, columns=COLUMNS)
    rows = [{"hour": hour, "score": float(score)} for hour, score in ((1, 3), (1, 5), (9, 10))]
    heuristic = learned(tmp_path, "hour >= 9", rows, used)
    assert heuristic.predictions[:, 0] == pytest.approx([(3 + 5 + 6) / 3, (10 + 6) / 2, 6])


COLUMNS: dict[str, Any] = {
    "shop": {"kind": "vocabulary", "missing": "own"},
    "hour": {"kind": "numeric", "missing": "mean"},
    "bought": {"kind": "numeric", "missing": "mean"},
}


@pytest.mark.parametrize("planted", ["shop", "hour", "score"])
def test_mining_finds_the_planted_column(planted: str, tmp_path: Path) -> None:
    chance = random.Random(planted)
    rows = samples.rows(2_000, seed=5)
    for row in rows:
        row["score"] = chance.gauss(0, 1)
        knows = {"shop": row["shop"] == "B", "hour": 5 < row["hour"] < 9, "score": row["score"] > 1}
        row["bought"] = int(knows[planted] != (chance.random() < 0.1))
    heuristic = learned(tmp_path, "mined", rows)
    assert heuristic.buckets.column == planted
    predicted = dict(zip(heuristic.buckets.names(), heuristic.predictions[:, 0], strict=True))
    assert max(predicted.values()) == pytest.approx(0.9, abs=0.1)
    assert min(predicted.values()) == pytest.approx(0.1, abs=0.1)


def test_mining_sees_only_the_models_columns(tmp_path: Path) -> None:
    rows = samples.rows(400)
    for row in rows:
        row["mood"] = "glad" if row["bought"] else "sad"  # excluded as leakage
    assert learned(tmp_path, "mined", rows).buckets.column == "score"


def test_a_column_of_noise_with_many_values_does_not_win(tmp_path: Path) -> None:
    chance = random.Random(3)
    targets = np.array([[float(chance.random() < 0.5)] for _ in range(600)])
    everything = np.ones(600, bool)
    useful = np.array([int(t[0] != (chance.random() < 0.4)) for t in targets])
    noise = np.array([chance.gauss(0, 1) for _ in targets])
    columns = {"noise": Column(noise, everything), "useful": Column(useful, everything)}
    assert mine("binary", columns, targets) == Buckets("useful", boundaries=(0.0, 1.0))


def test_missing_alone_can_be_the_rule() -> None:
    there = np.arange(100) % 4 == 0
    columns = {"constant": Column(np.full(100, 7), there)}
    found = mine("binary", columns, there.astype(float)[:, None])
    assert found == Buckets("constant", boundaries=(7.0,))


def test_nothing_to_mine_stops_the_run() -> None:
    columns = {"constant": Column(np.full(4, 7), np.ones(4, bool))}
    with pytest.raises(PipelineStop, match="No column has two different values"):
        mine("binary", columns, np.array([[0.0], [1.0], [0.0], [1.0]]))
