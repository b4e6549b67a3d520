"""What is known of examples that come from the prediction log, and of nothing else."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tfx import types
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.continued_evaluation.evidence import Answers, Joined
from components.errors import PipelineStop
from components.registry import store

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
    examples: types.Artifact, split: str, champion: types.Artifact, label: str, tolerance: float
) -> Answers:
    """Compares the logged predictions with those of the same SavedModel now.

    Args:
      examples: Of the prediction log.
      split: Of them.
      champion: The model that made them.
      label: The label's column.
      tolerance: Of one value.
    """
    from components.continued_evaluation.answers import compare, read_labelled
    from components.evaluation.extractors import Served

    model = Served(path_utils.serving_model_path(champion.uri))
    folder = artifact_utils.get_split_uri([examples], split)
    parts = [
        (part.predictions, model.call("serving_default", part.examples))
        for part in read_labelled(folder, label)
    ]
    before, now = (_joined(side) for side in zip(*parts, strict=True))
    return compare(before, now, tolerance)


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts))
