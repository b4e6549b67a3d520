"""Rows with keys of their own, files of them, versions to predict them, and what is expected."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.batch_prediction import inputs, reading
from components.inference.columns import from_rows
from components.inference.model import Chosen, LoadedVersion
from components.registry import store
from tests.components.inference import small_versions

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
        row = {"id": 10**6 + number, "fare": fare, "hour": chance.randrange(24)}
        table.append({**row, "company": company})
    chance.shuffle(table)
    return table


def as_csv(table: list[Row], separator: str = ",") -> str:
    """The rows as CSV."""

    def field(value: Any) -> str:
        text = "" if value is None else str(value)
        return (
            f'"{text.replace(chr(34), chr(34) * 2)}"'
            if set(text) & set(f'"{separator}\n')
            else text
        )

    lines = [[*table[0]], *(map(field, row.values()) for row in table)]
    return "".join(f"{separator.join(line)}\n" for line in lines)


def write(path: Path, table: list[Row], **parquet: Any) -> Path:
    """Writes rows as the path's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        columns = {n: pa.array([r[n] for r in table], TYPES.get(n)) for n in table[0]}
        pq.write_table(pa.table(columns), path, **parquet)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(as_csv(table).encode()))
    else:
        path.write_text(as_csv(table))
    return path


def set_block(patch: pytest.MonkeyPatch, count: int) -> None:
    """Makes blocks of so many rows."""
    for module in (inputs, reading):
        patch.setattr(module, "BLOCK_ROWS", count)
    patch.setattr(reading, "_BATCH_ROWS", max(1, count * 2 // 3))


def predicted(output: Path) -> list[Row]:
    """The rows of all shards."""
    found: list[Row] = []
    for path in sorted(output.glob("predictions/*")):
        if path.suffix == ".parquet":
            found += pq.read_table(path).to_pylist()
        elif path.suffix == ".jsonl":
            found += [json.loads(line) for line in path.read_text().splitlines()]
    return found


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


def add_version(registry: Path, slope: float, key: str | None = None) -> int:
    """Files a version of `small_versions`, whose feature table has this key."""
    registry.parent.mkdir(parents=True, exist_ok=True)
    version = small_versions.add(registry, slope)
    path = Path(store.version_folder(str(registry), version), store.MANIFEST)
    manifest = json.loads(path.read_text())
    manifest["config"] = {"features": {"key": key}}
    path.write_text(json.dumps(manifest))
    return version


class _Classes(tf.Module):
    """Three classes: the share of each of hour, 1 and 2."""

    def raw(self, hour: tf.Tensor) -> dict[str, tf.Tensor]:
        shares = tf.stack([tf.cast(hour, tf.float32), 1.0 + 0.0 * tf.cast(hour, tf.float32)], 1)
        shares = tf.concat([shares, 2.0 * shares[:, 1:]], 1)
        return {"predictions": shares / tf.reduce_sum(shares, 1, keepdims=True)}


def add_multiclass(registry: Path) -> int:
    """Files a version with three classes."""
    saved = registry.parent / "classes"
    module = _Classes()
    column = tf.TensorSpec([None], tf.int64, name="hour")
    tf.saved_model.save(module, str(saved), signatures={"raw": tf.function(module.raw, [column])})
    signature = {
        "inputs": {"hour": {"type": "INT", "required": False}},
        "ignored": [],
        "problem": "multiclass",
        "classes": ["a", "b", "c"],
    }
    config = {"features": {"key": None}}
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
