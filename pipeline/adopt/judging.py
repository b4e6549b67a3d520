"""How the rows are divided, and what a model must reach: slices, thresholds."""

import math
from typing import Any

from pipeline.adopt.columns import ONE_HOT, Decision

MOST_SLICES = 3
MAIN_METRICS = {
    "binary": ("auc", "auc"),
    "multiclass": ("categorical_log_loss", "categorical_accuracy"),
    "regression": ("rmse", "rmse"),
}
"""What a model is compared by: with the heuristic, and with the champion."""

FEW_ROWS = 1_000


def fractions(rows: int) -> dict[str, float]:
    """The splits' fractions: with few rows more of them judge, or chance does."""
    if rows < FEW_ROWS:
        return {"train": 0.6, "eval": 0.1, "test": 0.3}
    return {"train": 0.7, "eval": 0.1, "test": 0.2}


def min_slice_size(test_rows: float) -> int:
    """A tenth of the test rows, at least 20 and at most 100."""
    return int(min(100, max(20, test_rows // 10)))


def slices(decisions: list[Decision], rows: int, test_rows: float) -> list[list[str]]:
    """Up to three columns whose values are worth a look each, and the first two crossed.

    Args:
      decisions: of all columns; those that tell most of the label come first.
      rows: that were profiled.
      test_rows: about so many will be in the test split.
    """
    least = min_slice_size(test_rows) * rows / max(1.0, test_rows)
    known = [d for d in decisions if not d.excluded and _has_slices(d, least)]
    known.sort(key=lambda d: -(d.score.by_bins if d.score else 0.0))
    chosen = [[d.column.name] for d in known[:MOST_SLICES]]
    if len(known) > 1 and known[0].column.distinct * known[1].column.distinct * least < rows:
        chosen.append([known[0].column.name, known[1].column.name])
    return chosen


def _has_slices(decision: Decision, least: float) -> bool:
    column = decision.column
    large = [count for _, count in column.frequent if count >= least]
    return column.kind != "FLOAT" and 2 <= column.distinct <= ONE_HOT and len(large) >= 2


def thresholds(problem: str, test_rows: float, deviation: float) -> list[dict[str, Any]]:
    """At least as good as the heuristic, and hardly worse than the champion.

    Classes are judged against the heuristic by log loss: with few test rows one row more or less
    decides about accuracy, and a good rule on one column is often as accurate as any model.

    Args:
      problem: binary, multiclass or regression.
      test_rows: the fewer, the more two models that are equally good differ by chance.
      deviation: of the label, for regression.
    """
    margin = max(0.002, 0.3 / math.sqrt(max(1.0, test_rows)))
    margin = float(f"{margin * (deviation if problem == 'regression' else 1.0):.2g}")
    over_heuristic, over_champion = MAIN_METRICS[problem]
    if over_heuristic == over_champion:
        return [{"metric": over_champion, "over_heuristic": 0.0, "over_champion": -margin}]
    return [
        {"metric": over_heuristic, "over_heuristic": 0.0},
        {"metric": over_champion, "over_champion": -margin},
    ]
