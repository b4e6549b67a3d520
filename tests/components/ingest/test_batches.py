"""Reading in batches: TFX's components get it, and read the same rows as without it."""

import inspect
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.transform.executor import TransformProcessor
from tfx.components.util import tfxio_utils
from tfx.proto import example_gen_pb2
from tfx_bsl.tfxio import tf_example_record

from components.ingest import batches
from components.ingest.batches import BatchedExamples, WriteBatches, install
from components.trainer.core.data import fingerprint
from tests.components.trainer import small_training as small

STOCK_WRITER = TransformProcessor._EncodeAndWrite
SCHEMA = text_format.Parse(
    'feature { name: "n" type: INT } feature { name: "s" type: BYTES }', schema_pb2.Schema()
)


@pytest.fixture
def pattern(tmp_path: Path) -> str:
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    for shard in range(3):
        with tf.io.TFRecordWriter(str(tmp_path / f"part-{shard}.gz"), options) as writer:
            for number in range(shard * 700, shard * 700 + 700):
                writer.write(_example(number))
    return str(tmp_path / "part-*")


def _example(number: int) -> bytes:
    features = {"s": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x" * (number % 7)]))}
    if number % 5:
        features["n"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _read(tfxio: Any, batch: int | None, folder: Path) -> list[pa.RecordBatch]:
    folder.mkdir()
    options = PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])
    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | tfxio.BeamSource(batch) | beam.Map(_save, str(folder))
    return [pa.ipc.open_file(path).get_batch(0) for path in folder.iterdir()]


def _save(batch: pa.RecordBatch, folder: str) -> None:
    path = f"{folder}/{uuid.uuid4()}"
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write(batch)


def _rows(batches: list[pa.RecordBatch]) -> Counter[str]:
    return Counter(str(row) for batch in batches for row in batch.to_pylist())


def test_same_rows_as_tfx_reads(pattern: str, tmp_path: Path) -> None:
    arguments = {"file_pattern": [pattern], "schema": SCHEMA, "raw_record_column_name": "raw"}
    descriptors = ["test"]
    ours = BatchedExamples(telemetry_descriptors=descriptors, **arguments)
    theirs = BatchedExamples.__bases__[0](telemetry_descriptors=descriptors, **arguments)
    batches = _read(ours, 500, tmp_path / "ours")
    assert _rows(batches) == _rows(_read(theirs, None, tmp_path / "theirs"))
    assert sum(batch.num_rows for batch in batches) == 2100
    assert {batch.num_rows for batch in batches} == {500, 200}


@pytest.mark.parametrize("columns", [None, ["n", "absent"]])
def test_statistics_are_tfdvs_own(pattern: str, tmp_path: Path, columns: list[str] | None) -> None:
    options = tfdv.StatsOptions(num_histogram_buckets=7, feature_allowlist=columns)
    found = []
    for name, summary in (("ours", batches.Statistics), ("theirs", batches._BY_TFDV)):
        path = str(tmp_path / name)
        with beam.Pipeline() as pipeline:
            rows = BatchedExamples(file_pattern=[pattern], telemetry_descriptors=[]).BeamSource(100)
            _ = pipeline | rows | summary(options) | tfdv.WriteStatisticsToBinaryFile(path)
        found.append(tfdv.load_stats_binary(path))
    assert found[0] == found[1]
    assert found[0].datasets[0].num_examples == 2100


def test_tfx_picks_it_once_installed(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """Fails when TFX no longer takes the class from where `install` puts it."""
    monkeypatch.setattr(tf_example_record, "TFExampleRecord", tf_example_record.TFExampleRecord)
    stock = inspect.signature(STOCK_WRITER)
    assert list(stock.parameters)[-3:] == ["schema", "file_format", "output_path"]
    monkeypatch.setattr(TransformProcessor, "_EncodeAndWrite", STOCK_WRITER)
    install()
    chosen = tfxio_utils.make_tfxio(
        file_pattern=[pattern],
        telemetry_descriptors=["test"],
        payload_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
        schema=SCHEMA,
    )
    assert isinstance(chosen, BatchedExamples)
    assert TransformProcessor.__new__(TransformProcessor)._EncodeAndWrite is WriteBatches


def test_written_rows_come_back_whole(tmp_path: Path) -> None:
    batches = [
        pa.RecordBatch.from_pydict({"n": [[i], [i + 1]], "s": [[b"a"], []]})
        for i in range(0, 40, 2)
    ]
    schema = text_format.Parse(
        'feature { name: "n" type: INT } feature { name: "s" type: BYTES }', schema_pb2.Schema()
    )
    prefix = str(tmp_path / "Split-train" / "examples")
    left = tmp_path / "Split-train" / "examples.0a1b.tmp"  # by a bundle whose worker was lost
    left.parent.mkdir()
    left.touch()
    options = PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])
    with beam.Pipeline(options=options) as pipeline:
        pairs = pipeline | beam.Create([(batch, {}) for batch in batches])
        _ = pairs | WriteBatches(schema, "tfrecords_gzip", prefix)
    files = sorted((tmp_path / "Split-train").iterdir())
    total = len(files)
    assert [f.name for f in files] == [f"examples-{i:05d}-of-{total:05d}.gz" for i in range(total)]
    records = tf.data.TFRecordDataset([str(f) for f in files], compression_type="GZIP")
    found = [tf.train.Example.FromString(r).features.feature for r in records.as_numpy_iterator()]
    assert sorted(row["n"].int64_list.value[0] for row in found) == list(range(40))
    assert all(
        len(row["s"].bytes_list.value) == 1 - row["n"].int64_list.value[0] % 2 for row in found
    )


@pytest.mark.prove
def test_what_several_workers_make_again_is_the_same_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They finish in any order, with other rows in other shards each time."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    rows = small.columns(900)
    for shard in range(6):
        small.write_examples(tmp_path / "in" / f"{shard}.gz", rows.take(range(shard, 900, 6)))
    features = dict.fromkeys(("x", "y", "label"), "FLOAT") | dict.fromkeys("ab", "INT")
    text = " ".join(f'feature {{ name: "{n}" type: {kind} }}' for n, kind in features.items())
    schema = text_format.Parse(text, schema_pb2.Schema())
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    found, shards = set(), []
    for name, mode in (("one", ["--direct_running_mode=in_memory"]), ("two", workers)):
        flags = ["--runner=FnApiRunner", "--sdk_container_image=unused", *mode]
        source = BatchedExamples(
            file_pattern=[str(tmp_path / "in" / "*")], schema=schema, telemetry_descriptors=["test"]
        )
        with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
            batches = pipeline | source.BeamSource(50) | beam.Map(lambda batch: (batch, {}))
            _ = batches | WriteBatches(schema, "tfrecords_gzip", str(tmp_path / name / "examples"))
        found.add(fingerprint([str(tmp_path / name / "*")], small.INPUTS))
        shards.append(len([*(tmp_path / name).iterdir()]))
    assert len(found) == 1
    assert shards[0] != shards[1]
