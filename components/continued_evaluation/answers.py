"""What is known of examples that come from the prediction log, and of nothing else."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.continued_evaluation.evidence import Answers, Joined
from components.errors import PipelineStop
from components.registry import store

_ROWS = 4096
JOINED_FILE = "joined.json"
JUDGED_VERSION, LOGGED_COLUMNS = "judged_version", "logged_columns"
"""Custom properties: whose predictions they are, and the columns that all of them have (JSON)."""


def is_logged(examples: types.Artifact) -> bool:
    """Whether these are logged predictions with labels that came later."""
    return bool(examples.has_custom_property(JUDGED_VERSION))


def read_joined(examples: types.Artifact) -> Joined | None:
    """What became of predictions and labels."""
    if not is_logged(examples):
        return None
    return Joined.model_validate_json(Path(examples.uri, JOINED_FILE).read_text())


def check_version(examples: types.Artifact, champion: int) -> None:
    """Another process may have moved the champion between two components.

    Raises:
      PipelineStop: It has.
    """
    version = examples.get_int_custom_property(JUDGED_VERSION)
    if version != champion:
        raise PipelineStop(
            f"The predictions are version {version}'s, and by now the champion is {champion}. "
            "Run again."
        )


def can_be_recomputed(examples: types.Artifact, manifest: store.Manifest) -> bool:
    """Whether all that the model reads is in the log."""
    columns = json.loads(examples.get_string_custom_property(LOGGED_COLUMNS))
    return set(manifest["signature"]["inputs"]) <= set(columns)


def answers(
    examples: types.Artifact, split: str, champion: types.Artifact, tolerance: float
) -> Answers:
    """Compares the logged predictions with those of the same SavedModel now.

    Args:
      examples: Of the prediction log.
      split: Of them.
      champion: The model that made them.
      tolerance: Of one value.
    """
    from components.evaluation.extractors import Served, logged_predictions

    model = Served(path_utils.serving_model_path(champion.uri))
    shards = sorted(Path(artifact_utils.get_split_uri([examples], split)).glob("*.gz"))
    before, now = [], []
    records = tf.data.TFRecordDataset([*map(str, shards)], "GZIP").batch(_ROWS)
    for rows in records.as_numpy_iterator():
        before.append(logged_predictions(rows))
        now.append(model.call("serving_default", rows))
    return compare(np.concatenate(before), np.concatenate(now), tolerance)


def compare(logged: np.ndarray, recomputed: np.ndarray, tolerance: float) -> Answers:
    """How far logged predictions are from those of the same rows now.

    A value may be off by the tolerance, and by the tolerance times its size where that is above 1,
    as float32 is no more exact. NaN equals NaN, infinity itself; any other value is different from
    them.

    Args:
      logged: float32 [N, C].
      recomputed: float32 [N, C].
      tolerance: Of one value.
    """
    if logged.shape != recomputed.shape:
        raise ValueError(f"{logged.shape} predictions are logged, {recomputed.shape} recomputed")
    before: np.ndarray = logged.astype(np.float64)
    now: np.ndarray = recomputed.astype(np.float64)
    finite = np.isfinite(before) & np.isfinite(now)
    same = (before == now) | (np.isnan(before) & np.isnan(now))
    off = np.abs(np.subtract(before, now, where=finite, out=np.zeros_like(now)))
    allowed = tolerance * np.maximum(1.0, np.abs(now, where=finite, out=np.zeros_like(now)))
    different = ~np.where(finite, off <= allowed, same).all(axis=1)
    return Answers(
        rows=len(logged),
        different=float(different.mean()) if len(logged) else 0.0,
        largest=float(off.max(initial=0.0)),
    )
