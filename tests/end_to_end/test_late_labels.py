"""Predictions are logged, labels come later, and the champion is judged on what it answered."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.continued_evaluation import history
from tests import small
from tests.end_to_end.project import Project, Result

pytestmark = pytest.mark.prove

SETTINGS: dict[str, Any] = copy.deepcopy(small.SETTINGS) | {
    "prediction_log": {"enabled": True},
    "continued_evaluation": {
        "limits": [{"metric": "auc", "at_least": 0.6, "below_promotion": 0.1}],
        "labels": {
            "path": "labels",
            "pattern": "day-{SPAN}.csv",
            "key": "order",
            "label": "was_bought",
        },
    },
}


class Shop:
    """A project that has predicted some rows."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder, SETTINGS)
        self.model = str(self.project.registry)
        assert self.project.run().code == 0
        self.rows = small.rows(800, seed=5)
        # The key is no column of the model; `when` is excluded, and different in each row.
        asked = [{k: v for k, v in row.items() if k not in ("bought", "leak")} for row in self.rows]
        small.write_csv(folder / "asked" / "rows.csv", asked)
        self.project.call(
            "batch-predict", "--input", "asked/*.csv", "--output", "out", "--key", "when"
        )

    def label(self, day: int, rows: list[dict[str, Any]]) -> None:
        table = [{"order": row["when"], "was_bought": row["bought"]} for row in rows]
        small.write_csv(self.project.folder / "labels" / f"day-{day}.csv", table)

    def evaluate(self) -> tuple[Result, history.Record]:
        done = self.project.call("continued-evaluation")
        assert done.code in (0, 3), done.output
        return done, history.read_all(self.model)[-1]

    def logs(self) -> list[Path]:
        folder = self.project.folder / "workspace" / "predictions" / "small"
        return sorted(folder.rglob("*.parquet"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("shop") / "project")
    assert made.logs()
    return made


def test_a_version_is_judged_on_what_it_answered(shop: Shop) -> None:
    shop.label(1, shop.rows[:600])
    done, record = shop.evaluate()
    found = record.evidence
    assert record.decision.action == "keep", record.decision
    assert found.joined is not None
    assert (found.joined.joined, found.joined.unlabelled) == (600, 200)
    assert found.rows.total == 600
    # The same SavedModel answers as it did; so the judgement is the same.
    assert found.answers is not None
    assert (found.answers.rows, found.answers.different) == (600, 0.0)
    logged, now = (found.metrics[name]["overall"]["auc"] for name in ("logged", "champion"))
    assert logged.value == pytest.approx(now.value, abs=1e-4)
    assert {moved.against for moved in found.moved} == {"training", "served"}
    assert "v1 as logged" in done.output

    again, same = shop.evaluate()
    assert again.code == 0
    assert same.id == record.id
    assert len(history.read_all(shop.model)) == 1


def test_what_was_answered_and_what_is_answered_now_may_differ(shop: Shop) -> None:
    """A server with another library, or features computed in another way: skew."""
    for path in shop.logs():
        table = pq.read_table(path)
        values = np.concatenate(table["prediction"].to_numpy())
        values[::2] = 1 - values[::2]
        lists = pa.ListArray.from_arrays(
            pa.array(np.arange(len(table) + 1, dtype=np.int32)), pa.array(values.astype(np.float32))
        )
        column = table.schema.get_field_index("prediction")
        pq.write_table(table.set_column(column, "prediction", lists), path)
    shop.label(2, shop.rows)
    done, record = shop.evaluate()
    assert done.code == 3
    assert record.decision.action == "investigate"
    assert {"prediction_skew", "metric"} <= {reason.kind for reason in record.decision.reasons}
    assert record.evidence.answers is not None
    assert record.evidence.answers.different > 0.4
    logged, now = (
        record.evidence.metrics[name]["overall"]["auc"].value for name in ("logged", "champion")
    )
    assert logged is not None
    assert now is not None
    assert logged < 0.7 < now


def test_labels_of_other_keys_have_a_clear_word(shop: Shop) -> None:
    shop.label(3, [{**row, "when": f"order {row['when']}"} for row in shop.rows[:50]])
    before = history.read_all(shop.model)
    done = shop.project.call("continued-evaluation")
    assert done.code == 1
    assert "No label could be joined with a prediction of version 1" in done.output
    assert "order 1600000" in done.output
    assert history.read_all(shop.model) == before
