"""Prediction logs and label files as servers and people write them, and the components on them."""

import gzip
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.portable import data_types
from tfx.types import standard_artifacts
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.continued_evaluation.logged import LabelledLog, ServedInputs, Source
from components.inference.columns import DTYPES, MISSING
from components.inference.prediction_log import LogSettings, Predicted, write_named
from tests.components.evaluation import samples

Row = dict[str, Any]
INPUTS = {name: samples.TYPES[name] for name in ("score", "shop", "hour")}


def feature_row(number: int) -> Row:
    """Features that tell a row from all others; every fifth shop and hour is missing."""
    missing = number % 5 == 0
    shop = None if missing else f"Ä{number}"
    return {"score": number / 4, "shop": shop, "hour": None if missing else number}


class Place:
    """A folder with a log, labels and a registry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log, self.labels = folder / "predictions", folder / "labels"
        self.labels.mkdir()
        self._made = 0

    def predict(
        self,
        keys: Sequence[str | int | None] | None,
        rows: Iterable[Row],
        version: int = 3,
        time: str = "2026-03-10T12:00",
        predictions: Sequence[Sequence[float]] | None = None,
        exclude: Sequence[str] = (),
    ) -> str:
        """Writes a file of the log, as batch prediction does; returns its name."""
        table = list(rows)
        given = predictions or [[row["score"] / 100] for row in table]
        moment = datetime.fromisoformat(f"{time}+00:00")
        self._made += 1
        name = f"batch-{self._made:03d}"
        predicted = Predicted(
            version=version,
            microseconds=int(moment.timestamp() * 1_000_000),
            keys=keys,
            columns={name: _column(table, name, kind) for name, kind in INPUTS.items()},
            predictions=np.array(given, np.float32),
        )
        settings = LogSettings(enabled=True, exclude=[*exclude])
        write_named(self.log, "small", name, predicted, settings)
        return name

    def write_labels(self, name: str, content: str | bytes) -> Path:
        """Writes a label file, gzipped if its name ends in .gz."""
        data = content.encode() if isinstance(content, str) else content
        path = self.labels / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    def _log(self, changes: dict[str, Any], days: int = 30) -> str:
        """The component's source; `version`, `days` and `columns` are taken out of the changes."""
        given = {"version": 3, "days": days, "columns": samples.TYPES}
        given |= {name: changes.pop(name) for name in {*given} & {*changes}}
        where = {"predictions": str(self.log), "registry": str(self.folder / "registry")}
        return Source(**where, **given, model="small").model_dump_json()

    def labelled_log(self, **changes: Any) -> BaseComponent:
        """The component, on this place; `labels` and others may be changed."""
        labels = {"path": "labels", "pattern": "*.csv*", "key": "id", "label": "outcome"}
        labels |= changes.pop("labels", {})
        given = {
            "log": self._log(changes, labels.get("days", 30)),
            "labels": json.dumps(labels),
            "labels_folder": str(self.labels),
            "span": "newest",
            "features": samples.TABLE.model_dump_json(),
            "code": "1",
        }
        return LabelledLog(**given | changes)

    def served_inputs(self, **changes: Any) -> BaseComponent:
        """The component, on this place."""
        return ServedInputs(log=self._log(changes), code="1")


def _column(table: list[Row], name: str, kind: str) -> np.ndarray:
    values = [row[name] for row in table]
    if kind == "BYTES":
        values = [value and value.encode() for value in values]
    filled = [MISSING[kind] if value is None else value for value in values]
    made = np.empty(len(filled), DTYPES[kind])
    made[:] = filled
    return made


def drive(component: BaseComponent) -> dict[str, Any]:
    """Runs the component's driver; returns the execution properties, with what it found."""
    properties = dict(component.exec_properties)
    driver = component.DRIVER_CLASS(None)
    output = driver.run(data_types.ExecutionInfo(exec_properties=properties))
    return properties | {name: v.string_value for name, v in output.exec_properties.items()}


def execute(
    component: BaseComponent, folder: Path, properties: dict[str, Any] | None = None
) -> types.Artifact:
    """Runs the component's executor, with what its driver found, into an artifact at a folder."""
    made = samples.artifact(standard_artifacts.Examples, folder)
    executor = component.executor_spec.executor_class(samples.context(folder.parent))
    executor.Do({}, {"examples": [made]}, drive(component) if properties is None else properties)
    return made


def read(examples: types.Artifact, split: str) -> list[Row]:
    """The examples of a split as rows of lists; [] where a value is missing."""
    shards = sorted(str(path) for path in Path(examples.uri, f"Split-{split}").iterdir())
    records = [*tf.data.TFRecordDataset(shards, compression_type="GZIP").as_numpy_iterator()]
    rows = ExamplesToRecordBatchDecoder().DecodeBatch(records).to_pylist() if records else []
    return [{name: value or [] for name, value in row.items()} for row in rows]
