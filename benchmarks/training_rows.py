"""Transformed examples for trainings: made up, like the taxi trips', or the template's own."""

import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from benchmarks import template

LABEL = "label"
_SIZES = {
    "trip_miles": None, "trip_seconds": None, "fare": None,
    "trip_miles_range": 21, "trip_seconds_range": 21, "fare_range": 21,
    "pickup_latitude": 11, "pickup_longitude": 11, "dropoff_latitude": 11, "dropoff_longitude": 11,
    "trip_start_hour": 26, "trip_start_day": 9, "trip_start_month": 14,
    "pickup_community_area": 78, "dropoff_community_area": 78, "dropoff_census_tract": 101,
    "payment_type": 9, "company": 52, "payment_by_fare": 200,
}  # fmt: skip
"""The features of configs/taxi.yaml, as its Transform counts their ids."""
_EMBED = {"dropoff_census_tract": 8, "company": 8}
INPUTS: dict[str, Any] = {
    "problem": "binary",
    "label": LABEL,
    "num_classes": 1,
    "features": [
        {"name": name, "size": size} | ({"embed": _EMBED.get(name)} if size else {})
        for name, size in _SIZES.items()
    ],
}
_PART = 125_000
_DISTINCT_PARTS = 8
_ROWS_A_BATCH = 25_000
_EVAL_ROWS = 20_000
_OPTIONS = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)


def write(folder: Path, rows: int) -> None:
    """Writes `train-*` with `rows` rows and a small `eval`, as Transform writes them.

    Up to a million rows differ; more are those again, copied as they are compressed.
    """
    folder.mkdir(parents=True)
    parts = [(folder / f"part-{n}", _PART, n) for n in range(_DISTINCT_PARTS) if n * _PART < rows]
    rest = rows % _PART
    if rest:
        parts.append((folder / "part-rest", rest, _DISTINCT_PARTS))
    with multiprocessing.get_context("spawn").Pool() as pool:
        pool.starmap(_write_part, [*parts, (folder / "eval", _EVAL_ROWS, _DISTINCT_PARTS + 1)])
    whole = [path for path, count, _ in parts if count == _PART]
    for number in range(rows // _PART):  # gzip files one after the other are a gzip file
        target = folder / f"train-{number // _DISTINCT_PARTS:05d}"
        with target.open("ab") as file, whole[number % len(whole)].open("rb") as part:
            shutil.copyfileobj(part, file, 1 << 20)
    if rest:
        (folder / "part-rest").rename(folder / "train-rest")
    for path in whole:
        path.unlink()


def _write_part(path: Path, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    encoder = RecordBatchToExamplesEncoder()
    with tf.io.TFRecordWriter(str(path), _OPTIONS) as writer:
        for start in range(0, rows, _ROWS_A_BATCH):
            columns = dict(_columns(random, min(_ROWS_A_BATCH, rows - start)))
            one_each = pa.array(np.arange(len(columns[LABEL]) + 1, dtype=np.int32))
            lists = [pa.ListArray.from_arrays(one_each, pa.array(c)) for c in columns.values()]
            for example in encoder.encode(pa.RecordBatch.from_arrays(lists, [*columns])):
                writer.write(example)


def _columns(random: Any, rows: int) -> Iterator[tuple[str, Any]]:
    score = random.normal(size=rows)
    for name, size in _SIZES.items():
        if size is None:
            yield name, (random.normal(size=rows) + score).astype(np.float32)
        else:
            yield name, random.integers(0, size, rows)
    yield LABEL, (score + random.normal(size=rows) > 0.5).astype(np.float32)


def write_of_template(copy: Path, folder: Path) -> dict[str, Any]:
    """Writes the transformed rows of a copy of the template that has run, as ours are.

    Only the type of the label differs. Returns the feature spec.
    """
    folder.mkdir()
    sizes: dict[str, int | None] = {}
    label = template.LABEL
    for split in ("train", "eval"):
        files = [str(f) for f in (template.transformed_examples(copy) / f"Split-{split}").iterdir()]
        with tf.io.TFRecordWriter(str(folder / split), _OPTIONS) as writer:
            for record in tf.data.TFRecordDataset(files, "GZIP"):
                example = tf.train.Example.FromString(record.numpy())
                features = example.features.feature
                features[label].float_list.value.append(features[label].int64_list.value[0])
                writer.write(example.SerializeToString())
                for name in features:
                    found = features[name].int64_list.value
                    sizes[name] = max(sizes.get(name) or 0, found[0] + 1) if found else None
    del sizes[label]
    features = [
        {"name": name, "size": size} | ({"embed": None} if size else {})
        for name, size in sorted(sizes.items())
    ]
    return {"problem": "binary", "label": label, "num_classes": 1, "features": features}
