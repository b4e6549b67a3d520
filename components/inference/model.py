"""A version, loaded: the one way in which this project predicts (book pattern 16).

Whatever predicts calls it, one row or millions, so that the same row has the same prediction in
each.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.errors import PipelineStop
from components.features.names import safe_names
from components.inference.columns import DTYPES, MISSING, Columns, InvalidRows
from components.registry import signature, store
from components.registry.signature import Signature


@dataclass(frozen=True)
class Chosen:
    """A version of a model in the registry: what can be handed to another process."""

    folder: str
    version: int

    @property
    def name(self) -> str:
        """The model's name."""
        return os.path.basename(os.path.normpath(self.folder))


def choose(folder: str, wanted: str | int = store.CHAMPION) -> Chosen:
    """Finds a version by its number or label.

    Raises:
        PipelineStop: If there is none; the message says what there is.
    """
    versions, labels = store.list_versions(folder), store.read_labels(folder)
    number = int(wanted) if str(wanted).isdecimal() else labels.get(str(wanted))
    if number in versions:
        return Chosen(folder, number)
    if not versions:
        raise PipelineStop(f"There are no versions in {folder} yet: train one first.")
    named = ", ".join(f"{label} ({version})" for label, version in labels.items()) or "none"
    raise PipelineStop(
        f"There is no version or label '{wanted}' in {folder}. Versions: "
        f"{', '.join(map(str, versions))}. Labels: {named}. A version becomes champion when it "
        "is promoted: `versions promote` with its number, or `make promote VERSION=...`."
    )


class LoadedVersion:
    """A version's SavedModel in memory. Thread-safe, as TensorFlow's functions are."""

    def __init__(self, chosen: Chosen):
        """Loads it, and predicts once so that the first caller does not wait.

        Raises:
            PipelineStop: If the version is damaged.
        """
        manifest = store.read_manifest(chosen.folder, chosen.version)
        self.version = chosen.version
        self.signature = signature.of(manifest)
        self._model = _load(store.version_folder(chosen.folder, chosen.version))
        self._raw = self._model.signatures["raw"]
        there = self._model.signatures
        self._details = {name: there[name] for name in DETAILS if name in there}
        self._safe = safe_names(self.signature["inputs"])
        self.predict(self.missing_row())

    @property
    def outputs(self) -> int:
        """The width of a prediction: 1, or the number of classes."""
        width: int = self._raw.structured_outputs["predictions"].shape[1]
        return width

    def parts(self, detail: str = "") -> dict[str, int]:
        """What comes of a prediction with a detail, or of the plain one: its outputs and widths."""
        signature = self._signature(detail)
        return {name: spec.shape[1] for name, spec in signature.structured_outputs.items()}

    @property
    def details(self) -> list[str]:
        """Those of `DETAILS` that the version has."""
        return [*self._details]

    def missing_row(self) -> Columns:
        """A row in which every value is missing."""
        return {
            name: np.array([MISSING[column["type"]]], DTYPES[column["type"]])
            for name, column in self.signature["inputs"].items()
        }

    def predict(self, columns: Columns) -> np.ndarray:
        """Predicts checked rows.

        Args:
            columns: What `components.inference.columns` makes, [rows] each.

        Returns:
            float32 [rows, 1] (a probability, or a value in the label's units), or [rows, classes].
        """
        predictions: np.ndarray = self._raw(**self._tensors(columns))["predictions"].numpy()
        return predictions

    def predict_with(self, detail: str, columns: Columns) -> np.ndarray:
        """Predicts checked rows, with one of `DETAILS`.

        Args:
            detail: Its name; "" for none.
            columns: What `components.inference.columns` makes, [rows] each.

        Returns:
            float32 [rows, ...]: the outputs of `parts` side by side; `split` takes them apart.

        Raises:
            InvalidRows: If the version does not have it.
        """
        if not detail:
            return self.predict(columns)
        answer = self._signature(detail)(**self._tensors(columns))
        return np.concatenate([answer[name].numpy() for name in self.parts(detail)], 1)

    def split(self, detail: str, values: np.ndarray) -> dict[str, np.ndarray]:
        """What `predict_with` returns, by output, [rows, width] each."""
        widths = self.parts(detail)
        starts = np.cumsum([0, *widths.values()])
        return {
            name: values[:, start : start + width]
            for (name, width), start in zip(widths.items(), starts, strict=False)
        }

    def _signature(self, detail: str) -> Any:
        if detail and detail not in self._details:
            raise InvalidRows([DETAILS[detail]])
        return self._details[detail] if detail else self._raw

    def _tensors(self, columns: Columns) -> dict[str, Any]:
        import tensorflow as tf

        return {
            safe: tf.constant(columns[name], tf.as_dtype(columns[name].dtype))
            for name, safe in self._safe.items()
        }


DETAILS = {
    "uncertain": "the network has one member: train with `model.members` above 1",
    "distribution": "the version predicts no distribution: train with `model.buckets`",
    "explain": "the version explains nothing: train with `model.explain: true`",
}
"""The SavedModel's signatures that say more of a prediction, and what is wrong without them."""


def likeliest(of: Signature, predictions: np.ndarray) -> list[Any] | None:
    """The name of each row's likeliest class, as the label has it.

    Args:
        of: The version's signature. With two classes the one score is the second's probability.
        predictions: float32 [rows, 1] or [rows, classes].

    Returns:
        Names, [rows]; None where the label has no classes. Of a multilabel problem those of all
        classes that are likelier than not, in a list.
    """
    names = of.get("classes")
    if not names:
        return None
    if of["problem"] == "multilabel":
        return [[names[n] for n in np.flatnonzero(row > 0.5)] for row in predictions]
    scores = predictions if predictions.shape[1] > 1 else np.hstack([1 - predictions, predictions])
    return [names[number] for number in scores.argmax(1)]


def _load(folder: str) -> Any:
    import tensorflow as tf

    try:
        return tf.saved_model.load(folder)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise PipelineStop(
            f"{folder} cannot be loaded: {str(error).splitlines()[0]}. What is damaged is said by "
            "`python -m pipeline versions verify`."
        ) from error
