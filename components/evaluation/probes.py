"""What a model does where a column's values are others: importances, and a what-if.

Permutation importance (Breiman 2001, doi:10.1023/A:1010933404324): by how much the metric gets
worse when a column's values are shuffled among the test rows. What-if (book pattern: Fairness
Lens): which share of the predictions changes when a column, such as a protected one, has another
value.
"""

import glob
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from components.evaluation import metrics
from components.evaluation.heuristic import read_rows
from components.evaluation.thresholds import METRICS
from components.features.missing import MISSING
from components.features.names import safe_names
from components.features.table import FeatureTable

_ROWS, _SHUFFLES, _VALUES = 5_000, 3, 10
MAIN = {
    "binary": "auc",
    "multilabel": "auc",
    "multiclass": "categorical_log_loss",
    "regression": "rmse",
}
"""The metric of the importances."""


def probe(
    model: str,
    examples: str,
    table: FeatureTable,
    kinds: Mapping[str, str],
    what_if: list[str],
    importances: bool,
) -> dict[str, Any]:
    """Probes a SavedModel on the first 5,000 rows of a split.

    Args:
        model: Its folder.
        examples: The folder of the split, of TFRecords.
        table: The feature table.
        kinds: The columns' kinds in the schema.
        what_if: Raw columns whose values are exchanged.
        importances: Whether columns are shuffled as well.

    Returns:
        `what_if` {column: {"changed": the share of rows whose prediction changes for some other of
        the ten most frequent values, "by": by how much the prediction moves on average}}, where a
        class changes, or a number by more than its root mean squared error; and `importances`
        {column: by how much worse the metric `importance_of` is, if it has a value}.
    """
    import tensorflow as tf

    raw = tf.saved_model.load(model).signatures["raw"]
    specs, safe = raw.structured_input_signature[1], safe_names(table.raw_columns())
    rows, targets = _rows(examples, table, kinds)

    def predict(values: pd.DataFrame) -> np.ndarray:
        given = {safe[n]: _tensor(values[n], specs[safe[n]].dtype) for n in safe}
        predictions: np.ndarray = raw(**given)["predictions"].numpy()
        return predictions

    predictions = predict(rows)
    found: dict[str, Any] = {}
    if what_if:
        limit = _error(table.problem, targets, predictions)
        problem = table.problem
        found["what_if"] = {
            c: _changed(predict, rows, predictions, c, problem, limit) for c in what_if
        }
    if importances:
        name = MAIN[table.problem]
        sign = 1 if METRICS[name].higher_is_better else -1
        whole = _score(table.problem, targets, predictions)
        drops = {
            c: sign * (whole - _shuffled(predict, rows, targets, c, table.problem))
            for c in table.raw_columns()
        }
        known = {column: drop for column, drop in drops.items() if math.isfinite(drop)}
        found |= {"importance_of": name, "importances": known}
    return found


def _rows(
    examples: str, table: FeatureTable, kinds: Mapping[str, str]
) -> tuple[pd.DataFrame, np.ndarray]:
    kept, count = [], 0
    files = sorted(glob.glob(os.path.join(examples, "*")))
    for part in read_rows(files, table, kinds, table.raw_columns()):
        kept.append(part)
        if (count := count + len(part[1])) >= _ROWS:
            break
    rows = pd.concat([rows for rows, _ in kept], ignore_index=True).iloc[:_ROWS]
    return rows, np.concatenate([targets for _, targets in kept])[:_ROWS]


def _tensor(column: "pd.Series[Any]", dtype: Any) -> Any:
    import tensorflow as tf

    if dtype == tf.string:
        texts = [b"" if pd.isna(value) else str(value).encode() for value in column]
        return tf.constant(texts, tf.string)
    filled = column.astype("float64" if dtype == tf.float32 else "object")
    if dtype == tf.int64:
        return tf.constant([MISSING["INT"] if pd.isna(v) else int(v) for v in filled], tf.int64)
    return tf.constant(filled.to_numpy(np.float32), tf.float32)


def _score(problem: str, targets: np.ndarray, predictions: np.ndarray) -> float:
    labels = targets.argmax(axis=1) if problem == "multiclass" else targets
    labels = labels if problem in ("multiclass", "multilabel") else targets[:, 0]
    totals = metrics.totals_of(problem, labels, predictions)
    return metrics.measure(problem, totals)[MAIN[problem]]


def _error(problem: str, targets: np.ndarray, predictions: np.ndarray) -> float | None:
    """From where on a number has changed; None for classes."""
    return _score(problem, targets, predictions) if problem == "regression" else None


def _shuffled(
    predict: Any, rows: pd.DataFrame, targets: np.ndarray, column: str, problem: str
) -> float:
    scores = []
    for seed in range(_SHUFFLES):
        order = np.random.default_rng(seed).permutation(len(rows))
        other = rows.assign(**{column: rows[column].to_numpy()[order]})
        scores.append(_score(problem, targets, predict(other)))
    return float(np.mean(scores))


def _changed(
    predict: Any,
    rows: pd.DataFrame,
    predictions: np.ndarray,
    column: str,
    problem: str,
    limit: float | None,
) -> dict[str, float]:
    changed: np.ndarray = np.zeros(len(rows), bool)
    moved = [np.zeros(0)]
    for value in rows[column].value_counts().index[:_VALUES]:
        others = predict(rows.assign(**{column: pd.Series([value] * len(rows), dtype=object)}))
        distance = np.abs(others - predictions).max(axis=1)
        moved.append(distance[(rows[column] != value).to_numpy()])
        if limit is not None:
            changed |= distance > limit
        elif problem in ("binary", "multilabel"):
            changed |= ((others > 0.5) != (predictions > 0.5)).any(axis=1)
        else:
            changed |= others.argmax(axis=1) != predictions.argmax(axis=1)
    by = np.concatenate(moved)  # of nothing, where the column has one value
    return {"changed": float(changed.mean()), "by": float(by.mean()) if len(by) else 0.0}
