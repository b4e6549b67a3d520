"""Real files, the real component, its real driver and executor, and real Beam."""

import gzip
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx import types
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.ingest.component import ArrowExampleGen, Driver
from components.ingest.settings import IngestSettings

BEAM = [
    "--runner=FnApiRunner",
    "--direct_running_mode=in_memory",
    "--sdk_container_image=unused",
]
BY_ROW = {"by": "row", "train": 0.6, "eval": 0.2, "test": 0.2}
Row = dict[str, Any]


@dataclass
class Made:
    """What the executor made."""

    artifact: types.Artifact

    def shards(self, split: str) -> list[str]:
        return sorted(p.name for p in Path(self.artifact.uri, f"Split-{split}").iterdir())

    def rows(self, split: str) -> list[Row]:
        folder = Path(self.artifact.uri, f"Split-{split}")
        files = [str(folder / name) for name in self.shards(split)]
        records = tf.data.TFRecordDataset(files, compression_type="GZIP")
        return [_as_row(record) for record in records.as_numpy_iterator()]

    def all_rows(self) -> list[Row]:
        return [row for split in ("train", "eval", "test") for row in self.rows(split)]

    def counts(self) -> dict[str, int]:
        return json.loads(Path(self.artifact.uri, "counts.json").read_text())


def _as_row(record: bytes) -> Row:
    features = tf.train.Example.FromString(record).features.feature
    row: Row = {}
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        row[name] = getattr(feature, kind).value[0] if kind else None
    return row


def properties_of(component: ArrowExampleGen) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str | int) else proto_utils.proto_to_json(value)
        for key, value in component.spec.exec_properties.items()
        if value is not None
    }


@pytest.fixture
def make_settings() -> Callable[..., IngestSettings]:
    """Settings for the columns id, x and name; what differs is given."""

    def make(**changes: Any) -> IngestSettings:
        columns = {"id": "INT", "x": "FLOAT", "name": "BYTES"}
        return IngestSettings(**{"columns": columns, "label": "id", "split": BY_ROW} | changes)

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes | str], str]:
    """Writes a file below the data folder, gzipped if its name ends in .gz; returns its path."""

    def write_file(name: str, content: bytes | str) -> str:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write_file


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the driver over the data folder; returns the execution properties."""

    def run(settings: IngestSettings, pattern: str = "*") -> dict[str, Any]:
        component = ArrowExampleGen(str(tmp_path / "data"), pattern, settings)
        properties = properties_of(component)
        return Driver.__new__(Driver).resolve_exec_properties(properties, None, None)

    return run


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., Made]:
    """Runs the executor, each time into a new folder unless one is named."""
    numbers = itertools.count()

    def run(properties: dict[str, Any], beam: list[str] = BEAM, uri: str = "") -> Made:
        examples = standard_artifacts.Examples()
        examples.uri = str(tmp_path / (uri or f"examples-{next(numbers)}"))
        executor_class = ArrowExampleGen.EXECUTOR_SPEC.executor_class
        context = executor_class.Context(
            beam_pipeline_args=beam, tmp_dir=str(tmp_path / "tmp"), unique_id="1"
        )
        executor_class(context).Do({}, {"examples": [examples]}, properties)
        return Made(examples)

    return run


@pytest.fixture
def ingest(
    drive: Callable[..., dict[str, Any]], execute: Callable[..., Made]
) -> Callable[..., Made]:
    """Runs driver and executor over the data folder."""

    def run(settings: IngestSettings, pattern: str = "*") -> Made:
        return execute(drive(settings, pattern))

    return run
