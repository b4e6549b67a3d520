"""The rule to beat: read, checked, learned from rows, and applied."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.errors import PipelineStop
from components.evaluation import heuristic
from components.evaluation.arrays import frame
from components.evaluation.heuristic import Buckets, Heuristic, heuristic_problems, mine
from components.features.table import FeatureTable
from tests.components.evaluation import samples
from tests.components.evaluation.samples import TABLE, TYPES


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("hour = 3", "'hour = 3' is not a rule: write a condition on columns"),
        ("'hour == 3", "is not a rule"),
        ("3 > 2", "is not a rule"),
        ("shop == A", "the rule's column 'A' is not in the schema"),
        ("shop == True", "'shop' is BYTES, so True must be a quoted text"),
        ("hours == 3", "the rule's column 'hours' is not in the schema; did you mean 'hour'?"),
        ("`net price` == 3", "the rule's column 'net price' is not in the schema: score, shop"),
        ("bought == 1", "the rule's column 'bought' is the label"),
        ("mood == 'sad'", "the rule's column 'mood' is excluded as leakage"),
        ("hour == '3'", "'hour' is INT, so '3' must be a number"),
        ("hour > 3 and shop == 3", "'shop' is BYTES, so 3 must be a quoted text"),
        ("hour + 1", "cannot be computed: it is neither true nor false for a row"),
        ("shop > hour", "cannot be computed: '>' not supported"),
    ],
)
def test_a_wrong_rule_is_named(rule: str, sentence: str) -> None:
    (message,) = heuristic_problems(rule, TABLE, TYPES)
    assert sentence in message


@pytest.mark.parametrize(
    "rule",
    ["mined", "hour >= 12", "shop == 'A'", "score<0.5 or shop in ['A', 'B']", "1 < hour < 9"],
)
def test_a_right_rule_has_no_problems(rule: str) -> None:
    assert not list(heuristic_problems(rule, TABLE, TYPES))


HOSTILE = 'it\'s "a" >= b'


@pytest.mark.parametrize(
    ("rule", "values", "holds"),
    [
        ("c < 5", np.array([4, 5, 6]), [1, 0, 0]),
        ("c <= 5.5", np.array([5, 6]), [1, 0]),
        ("c < 10.1", np.array([10.0, 10.1, 10.2], np.float32), [1, 0, 0]),
        ("c <= 10.1", np.array([10.1, 10.2], np.float32), [1, 0]),
        ("c == 'a == b'", np.array(["a == b", "a"], object), [1, 0]),
        (r"c != 'e\nf'", np.array(["e\nf", "ü"], object), [0, 1]),
    ],
)
@pytest.mark.parametrize("column", ["c", "net price", HOSTILE])
def test_a_rule_divides_where_it_says(
    rule: str, values: np.ndarray, holds: list[int], column: str
) -> None:
    """A number is compared as the column stores it; any name can stand between backticks."""
    quoted = rule.replace("c ", "c " if column == "c" else f"`{column}` ", 1)
    made = Buckets(columns=(column,), condition=quoted)
    rows = pd.DataFrame({column: pd.Series(values).reindex(range(len(values) + 1))})
    assert made.of(rows.astype(values.dtype, errors="ignore")).tolist() == [*holds, 2]


def test_buckets_say_what_they_hold() -> None:
    assert Buckets(columns=("shop",), values=("A",)).names() == ["other", "'A'", "missing"]
    names = ["below 1", "1 to 2.5", "from 2.5", "missing"]
    assert Buckets(columns=("n",), boundaries=(1.0, 2.5)).names() == names


def learned(
    folder: Path, rule: str, rows: list[dict[str, Any]], table: FeatureTable = TABLE
) -> Heuristic:
    """Learned, written and read again."""
    data = samples.examples(folder, train=rows)
    heuristic.learn(rule, table, TYPES, [f"{data.uri}/Split-train"]).write(str(folder / "rule"))
    return heuristic.read(str(folder / "rule"))


def test_some_rows_are_of_all_files_alike(tmp_path: Path) -> None:
    folders = [samples.examples(tmp_path / n, train=samples.rows(9)).uri for n in ("old", "new")]
    files = [str(path) for folder in folders for path in Path(folder, "Split-train").iterdir()]
    read = [*heuristic.read_rows(files, TABLE, TYPES, ["hour"], 2)]
    hours = [row["hour"] for row in samples.rows(9)[:2]]
    assert [hour for rows, _ in read for hour in rows["hour"]] == hours * 2


def predicted(made: Heuristic, rows: list[dict[str, Any]]) -> np.ndarray:
    batch = ExamplesToRecordBatchDecoder().DecodeBatch([samples.encode(row) for row in rows])
    return made.predict(frame([batch], made.buckets.columns))


def test_a_rule_predicts_the_training_rate_of_each_side_and_of_missing(tmp_path: Path) -> None:
    rows = samples.rows(1_000)
    made = learned(tmp_path, "shop == 'A' and hour < 12", rows)
    sides: list[list[int]] = [[], [], []]
    for row in rows:
        side = 2 if row["shop"] is None else int(row["shop"] == "A" and row["hour"] < 12)
        sides[side].append(row["bought"])
    assert made.rows == [len(side) for side in sides]
    overall = sum(sum(side) for side in sides) / 1_000
    expected = [(sum(side) + overall) / (len(side) + 1) for side in sides]
    early = {"shop": "A", "hour": 3}
    unseen = [early, {**early, "shop": "never seen"}, {**early, "shop": ""}, {"shop": "A"}, {}]
    order = [expected[1], expected[0], *[expected[2]] * 3]  # one of them is missing
    assert predicted(made, unseen)[:, 0] == pytest.approx(order)
    said = made.describe()
    assert said["column"] == "hour, shop"
    assert [bucket["holds"] for bucket in said["buckets"]] == ["does not hold", "holds", "missing"]


NUMBERS = {name: {"kind": "numeric", "missing": "mean"} for name in ("hour", "bought")}
LEARNED = {
    "a side without rows has the overall rate, and none is certain": (
        {},
        "shop == 'B'",
        [{"shop": "A", "bought": int(number < 3)} for number in range(4)],
        [4, 0, 0],
        [[0.75], [0.75], [0.75]],
    ),
    "classes have their shares, and one that is not in the table is left out": (
        {"problem": "multiclass", "label": samples.MOODS},
        "hour < 12",
        [
            {"hour": hour, "mood": mood}
            for hour, moods in ((1, "sad sad calm"), (20, "glad"), (2, "angry"))
            for mood in moods.split()
        ],
        [1, 3, 0],
        [[0.25, 0.125, 0.625], [0.625, 0.3125, 0.0625], [0.5, 0.25, 0.25]],
    ),
    "a number is its mean": (
        {"problem": "regression", "label": {"column": "score"}, "columns": NUMBERS, "slices": []},
        "hour >= 9",
        [{"hour": hour, "score": float(score)} for hour, score in ((1, 3), (1, 5), (9, 10))],
        [2, 1, 0],
        [[14 / 3], [8], [6]],
    ),
}


@pytest.mark.parametrize(
    ("changes", "rule", "rows", "counts", "expected"), LEARNED.values(), ids=LEARNED
)
def test_a_bucket_predicts_its_mean_with_one_row_of_the_overall_mean(
    tmp_path: Path,
    changes: dict[str, Any],
    rule: str,
    rows: list[dict[str, Any]],
    counts: list[int],
    expected: list[list[float]],
) -> None:
    table = FeatureTable.model_validate({**TABLE.model_dump(), "exclude": {}, **changes})
    made = learned(tmp_path, rule, rows, table)
    assert made.rows == counts
    assert np.array(made.predictions) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("planted", ["shop", "hour", "score"])
def test_mining_finds_the_planted_column(planted: str, tmp_path: Path) -> None:
    chance = random.Random(planted)
    rows = samples.rows(2_000, seed=5)
    for row in rows:
        row["score"] = chance.gauss(0, 1)
        row["mood"] = "glad" if row["bought"] else "sad"  # excluded as leakage
        knows = {"shop": row["shop"] == "B", "hour": 5 < row["hour"] < 9, "score": row["score"] > 1}
        row["bought"] = int(knows[planted] != (chance.random() < 0.1))
    made = learned(tmp_path, "mined", rows)
    assert made.buckets.columns == (planted,)
    rates = [p for (p,) in made.predictions]
    assert (min(rates), max(rates)) == pytest.approx((0.1, 0.9), abs=0.1)


def test_a_column_of_noise_with_many_values_does_not_win() -> None:
    chance = random.Random(3)
    targets = np.array([[float(chance.random() < 0.5)] for _ in range(600)])
    useful = [int(t[0] != (chance.random() < 0.4)) for t in targets]
    noise = [chance.gauss(0, 1) for _ in targets]
    found = mine("binary", pd.DataFrame({"noise": noise, "useful": useful}), targets)
    assert found == Buckets(columns=("useful",), boundaries=(0.0, 1.0))


def test_missing_alone_can_be_the_rule_and_a_constant_cannot() -> None:
    there = np.arange(100) % 4 == 0
    rows = pd.DataFrame({"constant": np.where(there, 7.0, np.nan)})
    found = mine("binary", rows, there.astype(float)[:, None])
    assert found == Buckets(columns=("constant",), boundaries=(7.0,))
    with pytest.raises(PipelineStop, match="No column has two different values"):
        mine("binary", pd.DataFrame({"constant": np.full(4, 7)}), np.array([[0.0], [1.0]] * 2))
