"""Rows with keys of their own, files of them, versions to predict them, and what is expected."""

import csv
import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from components.batch_prediction.job import Form
from components.batch_prediction.run import Result, run
from components.inference.columns import from_rows
from components.inference.model import Chosen, LoadedVersion
from components.registry import labels, store
from components.registry.labels import Mover

FLAGS = [
    "--runner=FnApiRunner",
    "--direct_running_mode=in_memory",
    "--direct_num_workers=1",
    "--no_pipeline_type_check",
]
TYPES = {"fare": pa.float64(), "hour": pa.int64(), "company": pa.string()}
Row = dict[str, Any]


def rows(count: int, seed: int = 0) -> list[Row]:
    """Rows of `small_versions`' columns, each with its own fare and key, and some gaps."""
    chance = random.Random(seed)
    table = []
    for number in range(count):
        fare = None if chance.random() < 0.1 else number + 0.25
        company = chance.choice(["x", "Äther", 'a "b", c\nd', None])
        row = {"id": f"k{10**6 + number}", "fare": fare, "hour": chance.randrange(24)}
        table.append({**row, "company": company})
    chance.shuffle(table)
    return table


def write(path: Path, table: list[Row]) -> Path:
    """Writes rows as the path's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        columns = {n: pa.array([r[n] for r in table], TYPES.get(n)) for n in table[0]}
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "wt", newline="") as file:
            writer = csv.DictWriter(file, [*table[0]], lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    return path


def predict(
    registry: Path, pattern: Path | str, output: Path, flags: list[str] = FLAGS, **options: Any
) -> Result:
    """Runs a job; options are those of `run`, and fields of `Form`."""
    form = {name: options.pop(name) for name in {*Form.model_fields} & {*options}}
    return run(str(pattern), output, str(registry), Form(**form), flags, **options)


def predicted(output: Path) -> list[Row]:
    """The rows of all shards."""
    shards = sorted(output.glob("predictions/*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def rejected(output: Path) -> list[Row]:
    """The rows set aside."""
    files = sorted(output.glob("rejected/*"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def expected(registry: Path, version: int, table: list[Row], key: str = "id") -> dict[Any, float]:
    """The prediction of each key, as callers of the server get it."""
    loaded = LoadedVersion(Chosen(str(registry), version))
    names = loaded.signature["inputs"]
    columns = from_rows(loaded.signature, [{n: row[n] for n in names} for row in table])
    found = loaded.predict(columns)[:, 0].tolist()
    return dict(zip([row[key] for row in table], found, strict=True))


def set_config(registry: Path, version: int, config: Row) -> None:
    """Changes the configuration in a version's manifest."""
    path = Path(store.version_folder(str(registry), version), store.MANIFEST)
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"config": config}))


class _Members(tf.Module):
    """Three classes, the share of each of hour, 1 and 2; members differ by the hour."""

    def raw(self, hour: tf.Tensor) -> dict[str, tf.Tensor]:
        shares = tf.stack([tf.cast(hour, tf.float32), 1.0 + 0.0 * tf.cast(hour, tf.float32)], 1)
        shares = tf.concat([shares, 2.0 * shares[:, 1:]], 1)
        return {"predictions": shares / tf.reduce_sum(shares, 1, keepdims=True)}

    def uncertain(self, hour: tf.Tensor) -> dict[str, tf.Tensor]:
        predictions = self.raw(hour)["predictions"]
        spread = tf.cast(hour, tf.float32)[:, None] * tf.ones_like(predictions)
        return {"predictions": predictions, "uncertainty": spread}

    def explain(self, hour: tf.Tensor) -> dict[str, tf.Tensor]:
        predictions = self.raw(hour)["predictions"]
        baseline = tf.fill([tf.shape(hour)[0], 1], 0.5)
        likeliest = tf.reduce_max(predictions, axis=1, keepdims=True)
        return {
            "predictions": predictions,
            "attributions": likeliest - baseline,
            "baseline": baseline,
        }


def add_members(registry: Path) -> int:
    """Files a version with three classes and two members."""
    saved = registry.parent / "classes"
    module = _Members()
    column = tf.TensorSpec([None], tf.int64, name="hour")
    names = ("raw", "uncertain", "explain")
    graphs = {name: tf.function(getattr(module, name), [column]) for name in names}
    tf.saved_model.save(module, str(saved), signatures=graphs)
    signature = {
        "inputs": {"hour": {"type": "INT", "required": False}},
        "ignored": [],
        "problem": "multiclass",
        "classes": ["a", "b", "c"],
    }
    config = {"features": {"key": None}, "model": {"members": 2, "explain": True}}
    manifest = {"fingerprint": "classes", "signature": signature, "config": config}
    return store.add_version(str(registry), str(saved), manifest)


def assert_each_once(output: Path, wanted: dict[Any, float]) -> None:
    """Every key is in the shards once, with its own prediction."""
    found = predicted(output)
    keys = [row["key"] for row in found]
    assert len(keys) == len({*keys})
    assert {*keys} == {*wanted}
    values = [row["prediction"] for row in found]
    np.testing.assert_allclose(values, [wanted[key] for key in keys], rtol=1e-6)


class Case:
    """A registry, files of rows, and a job over them."""

    def __init__(self, registry: Path, folder: Path, table: list[Row], files: int) -> None:
        """Writes a table as so many files."""
        self.registry, self.folder = folder / "registry" / "small", folder
        self.output, self.data, self.table = folder / "out", folder / "data", table
        shutil.copytree(registry, self.registry)
        for number in range(files):
            ending = "csv" if number % 2 else "parquet"
            write(self.data / f"{number}.{ending}", table[number::files])

    def run(self, **options: Any) -> Result:
        """Runs the job, or another one."""
        return predict(self.registry, self.data, self.output, **{"key": "id"} | options)

    def promote(self, version: int) -> None:
        """Makes a version the champion."""
        over = store.read_labels(str(self.registry))[store.CHAMPION]
        labels.promote(str(self.registry), version, Mover("ann", ""), over=over)

    def assert_predicted_by(self, version: int, table: list[Row] | None = None) -> None:
        """Every key is there once, by the version, and nothing is half written."""
        assert_each_once(self.output, expected(self.registry, version, table or self.table))
        assert {row["version"] for row in predicted(self.output)} == {version}
        assert not [*self.output.rglob(".tmp-*")]
