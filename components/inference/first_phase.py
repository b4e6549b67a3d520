"""The small model of a version, asked before the full one (book pattern: Two-Phase Predictions)."""

import json
from pathlib import Path

import numpy as np

from components.errors import PipelineStop
from components.inference.columns import MISSING, Columns
from components.inference.model import Chosen, LoadedVersion
from components.registry import store

FOLDER, MODEL, FACTS = "assets.extra", "first_phase.tflite", "first_phase.json"
"""Where a version has it; `components.trainer.first_phase` says what is in the facts."""


def sureness(predictions: np.ndarray) -> np.ndarray:
    """The likeliest class's probability, [rows], of predictions [rows, 1] or [rows, classes]."""
    if predictions.shape[1] == 1:
        return np.maximum(predictions, 1 - predictions)[:, 0]
    return predictions.max(axis=1)


class FirstPhase:
    """The LiteRT model of a version, with the limit from which its answers stand."""

    def __init__(self, chosen: Chosen):
        """Loads it.

        Raises:
            PipelineStop: If the version has none.
        """
        import tensorflow as tf

        folder = Path(store.version_folder(chosen.folder, chosen.version), FOLDER)
        if not (folder / MODEL).is_file():
            raise PipelineStop(
                f"Version {chosen.version} of '{chosen.name}' has no small model: train with "
                "model.first_phase."
            )
        facts = json.loads((folder / FACTS).read_text())
        self._columns, self._threshold = facts["columns"], facts["threshold"]
        self._model = tf.lite.Interpreter(str(folder / MODEL))
        self._model.allocate_tensors()
        self._input = self._model.get_input_details()[0]["index"]
        self._output = self._model.get_output_details()[0]["index"]

    def predict(self, loaded: LoadedVersion, columns: Columns) -> dict[str, np.ndarray]:
        """Answers what it is sure of, and has the full model answer the rest.

        Returns:
            `predictions` float32 [rows, outputs], and which `phase` each is of, int64 [rows, 1].
        """
        small = np.concatenate([self._one(row) for row in self._numbers(columns)])
        escalated = np.flatnonzero(sureness(small) < self._threshold)
        predictions = small.copy()
        if len(escalated):
            rest = {name: values[escalated] for name, values in columns.items()}
            predictions[escalated] = loaded.predict(rest)
        phase: np.ndarray = np.ones((len(small), 1), np.int64)
        phase[escalated] = 2
        return {"predictions": predictions, "phase": phase}

    def _numbers(self, columns: Columns) -> np.ndarray:
        """The columns that it reads, float32 [rows, columns]; NaN where a value is missing."""
        wanted = [columns[name] for name in self._columns]
        numbers = [
            np.where(values == MISSING["INT"], np.nan, values)
            if values.dtype == np.int64
            else values
            for values in wanted
        ]
        return np.stack(numbers, axis=1).astype(np.float32)

    def _one(self, row: np.ndarray) -> np.ndarray:
        self._model.set_tensor(self._input, row[None])
        self._model.invoke()
        answer: np.ndarray = self._model.get_tensor(self._output)
        return answer
