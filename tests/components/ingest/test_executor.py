"""The component as a pipeline runs it: driver, executor, Beam."""

import json
import os
from pathlib import Path

import pytest
from tfx.components.util import examples_utils
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local import local_dag_runner
from tfx.proto import example_gen_pb2

from components.errors import PipelineStop
from components.ingest import batches, component, rows
from components.ingest.component import ArrowExampleGen
from components.ingest.settings import NamedTable, Query, RollingSpans, SpanRange

HEADER = "id,x,name\n"
BY_TIME = {"by": "time", "time": "id", "train": 0.6, "eval": 0.2, "test": 0.2}


def lines(*ids):
    return HEADER + "".join(f"{i},{i / 2},n{i % 40}\n" for i in ids)


def ids(rows):
    return sorted(row["id"] for row in rows)


def test_every_row_arrives_once_as_an_example(write, drive, execute, make_settings):
    write("a.csv", lines(*range(100)) + "100,,\n")
    write("b.csv.gz", lines(*range(101, 200)))
    properties = drive(make_settings())
    made = execute(properties)
    artifact, by_id = made.artifact, {row["id"]: row for row in made.all_rows()}
    assert ids(made.all_rows()) == [*range(200)]
    assert by_id[7] == {"id": 7, "x": 3.5, "name": b"n7"}
    assert by_id[100] == {"id": 100, "x": None, "name": None}
    # The artifact is described as TFX describes its own.
    assert json.loads(artifact.split_names) == ["train", "eval", "test"]
    assert examples_utils.get_payload_format(artifact) == example_gen_pb2.FORMAT_TF_EXAMPLE
    assert examples_utils.get_file_format(artifact) == "tfrecords_gzip"
    assert artifact.get_int_custom_property("span") == properties["span"] == 0
    assert not artifact.has_custom_property("version")
    fingerprint = artifact.get_string_custom_property("input_fingerprint")
    assert fingerprint == properties["input_fingerprint"]
    assert made.counts() == {s: len(made.rows(s)) for s in ("train", "eval", "test")}
    for split, count in made.counts().items():
        assert artifact.get_int_custom_property(f"rows_{split}") == count
    folders = [f"Split-{split}" for split in ("eval", "test", "train")]
    assert sorted(os.listdir(artifact.uri)) == [*folders, "counts.json"]


@pytest.mark.parametrize(
    ("spans", "expected", "listed"),
    [
        ("newest", range(80, 120), [3]),
        (SpanRange(first=1, last=2), range(80), [1, 2]),
        (RollingSpans(count=2), range(40, 120), [2, 3]),
    ],
)
def test_all_spans_of_a_range_are_read(write, ingest, make_settings, spans, expected, listed):
    for span in (1, 2, 3):
        write(f"{span}/v1/old.csv", lines(999))
        write(f"{span}/v2/new.csv", lines(*range(span * 40 - 40, span * 40)))
    made = ingest(make_settings(spans=spans), "{SPAN}/v{VERSION}/*.csv")
    assert ids(made.all_rows()) == [*expected]
    assert json.loads(made.artifact.get_string_custom_property("spans")) == listed
    counts = made.counts()
    by_span = counts.pop("spans", {"3": counts})
    assert [*by_span] == [*map(str, listed)]
    assert {sum(own.values()) for own in by_span.values()} == {40}
    assert {s: sum(own[s] for own in by_span.values()) for s in counts} == counts
    assert made.artifact.get_int_custom_property("span") == listed[-1]
    assert made.artifact.get_int_custom_property("version") == 2


def test_the_split_does_not_depend_on_files_spans_or_the_sample(write, ingest, make_settings):
    write("1.csv", lines(*range(200)))
    whole = ingest(make_settings(), "1.csv")
    before = {s: set(ids(whole.rows(s))) for s in ("train", "eval", "test")}
    write("2.csv", lines(*range(399, 99, -1)))
    write("3.csv", "name,id,x\n" + "".join(f"n{i % 40},{i},{i / 2}\n" for i in range(100)))
    after = ingest(make_settings(spans=SpanRange(first=2, last=3)), "{SPAN}.csv")
    sample = ingest(make_settings(sample=0.5), "1.csv")
    for split, kept in before.items():
        assert {i for i in ids(after.rows(split)) if i < 200} == kept
        assert set(ids(sample.rows(split))) < kept


def test_by_time_the_last_rows_of_all_files_are_test(write, ingest, make_settings):
    write("a.csv", lines(*range(99, -1, -2)))
    write("b.csv", lines(*range(0, 100, 2)))
    made = ingest(make_settings(split=BY_TIME))
    assert ids(made.rows("train")) == [*range(60)]
    assert ids(made.rows("eval")) == [*range(60, 80)]
    assert ids(made.rows("test")) == [*range(80, 100)]


def test_large_splits_get_several_shards(write, ingest, make_settings, monkeypatch):
    monkeypatch.setattr(batches, "SHARD_ROWS", 1000)
    monkeypatch.setattr(rows, "_VALUES", 3000)
    write("a.csv", lines(*range(9_000)))
    write("b.csv", lines(*range(9_000, 9_100)))
    made = ingest(make_settings())
    count = len(made.shards("train"))
    assert count > 2
    assert made.shards("train") == [
        f"data_tfrecord-{number:05d}-of-{count:05d}.gz" for number in range(count)
    ]
    assert ids(made.all_rows()) == [*range(9_100)]


def test_a_second_attempt_leaves_no_row_twice(write, drive, execute, make_settings):
    write("a.csv", lines(*range(100)))
    properties = drive(make_settings())
    first = execute(properties, uri="examples")
    shard = Path(first.artifact.uri, "Split-train", "data_tfrecord-00000-of-00001.gz")
    shard.rename(shard.with_name("data_tfrecord-00001-of-00002.gz"))
    assert ids(execute(properties, uri="examples").all_rows()) == [*range(100)]


def test_what_stops_a_run_is_one_message(write, drive, execute, make_settings):
    path = write("a.csv", HEADER + "1,1,a\n" * 20)
    properties = drive(make_settings())
    with pytest.raises(PipelineStop, match=r"No row fell into the split .*'train':"):
        execute(properties)
    write("a.csv", lines(*range(51)))
    with pytest.raises(PipelineStop, match="have changed since the run began"):
        execute(properties)
    Path(path).unlink()
    with pytest.raises(PipelineStop, match=r"data/a\.csv has vanished since the run began"):
        execute(properties)
    for number in range(5):
        write(f"{number}.csv", "x\n" if number else lines(*range(50)) + "x,1,a\n")
    with pytest.raises(PipelineStop) as stop:
        execute(drive(make_settings(split=BY_TIME)))
    assert str(stop.value).startswith(f"{path[:-5]}0.csv: bad rows:\n  line 52, column 'id': 'x'")
    assert str(stop.value).count("the columns do not fit: missing") == 2
    assert str(stop.value).endswith("2 more files have problems.")
    assert "while running" not in str(stop.value)


def test_without_the_driver_the_executor_finds_the_files(write, drive, execute, make_settings):
    """Open-source Kubeflow runs no driver of ours."""
    write("1.csv", lines(*range(50)))
    write("2.csv", lines(*range(50, 100)))
    properties = drive(make_settings(), "{SPAN}.csv")
    for key in (component.INPUTS_KEY, "span", "version", "input_fingerprint"):
        del properties[key]
    made = execute(properties)
    assert ids(made.all_rows()) == [*range(50, 100)]
    assert made.artifact.get_int_custom_property("span") == 2


@pytest.mark.prove
def test_in_a_pipeline_only_a_change_runs_it_again(tmp_path, write, make_settings):
    def run(settings):
        component = ArrowExampleGen(str(tmp_path / "data"), "{SPAN}.csv", settings)
        local_dag_runner.LocalDagRunner().run(
            pipeline.Pipeline(
                pipeline_name="p",
                pipeline_root=str(tmp_path / "root"),
                components=[component],
                enable_cache=True,
                metadata_connection_config=connection,
                beam_pipeline_args=["--runner=FnApiRunner", "--sdk_container_image=unused"],
            )
        )
        with metadata.Metadata(connection) as handle:
            return len(handle.store.get_artifacts_by_type("Examples"))

    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db"))
    path = write("1.csv", lines(*range(50)))
    assert run(make_settings()) == 1
    assert run(make_settings()) == 1
    assert run(make_settings(code="changed")) == 2
    os.utime(path, (1, 1))
    assert run(make_settings()) == 3
    write("2.csv", lines(*range(60)))
    assert run(make_settings()) == 4
    assert run(make_settings(spans=1)) == 5
    with pytest.raises(PipelineStop, match="there is no 7 in"):
        run(make_settings(spans=7))
    write("3.csv", HEADER + "three,1,a\n")
    with pytest.raises(PipelineStop, match="line 2, column 'id': 'three' is not a whole number"):
        run(make_settings())


@pytest.mark.prove
def test_several_workers_make_the_same_and_stop_the_same(
    write, drive, execute, make_settings, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(component.__file__).parents[2]))
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    beam = ["--runner=FnApiRunner", "--sdk_container_image=unused", *workers]
    for number in range(3):
        write(f"{number}.csv", lines(*range(number * 100, number * 100 + 100)))
    settings = make_settings(split=BY_TIME)
    alone = execute(drive(settings))
    expected = {s: ids(alone.rows(s)) for s in ("train", "eval", "test")}
    together = execute(drive(settings), beam=beam)
    assert {s: ids(together.rows(s)) for s in expected} == expected
    path = write("0.csv", "id,x,name\nx,1,a\n")
    with pytest.raises(PipelineStop) as stop:
        execute(drive(settings), beam=beam)
    assert str(stop.value).startswith(f"{path}: bad rows:\n  line 2, column 'id': 'x'")


def test_a_query_sees_one_row_or_all_files_of_a_span(tmp_path, write, ingest, drive, make_settings):
    for span in (1, 2):
        write(f"{span}/a.csv", lines(*range(span * 100, span * 100 + 60)))
        write(f"{span}/b.csv", lines(*range(span * 100 + 60, span * 100 + 90)))
    names = tmp_path / "names.csv"
    names.write_text("short,long\nn7,seven\n")
    by_row = Query(
        sql="SELECT id, x, coalesce(long, name) AS name FROM rows LEFT JOIN names ON short = name",
        tables={"names": NamedTable(files=[str(names)])},
    )
    spans = RollingSpans(count=2)
    rows = ingest(make_settings(query=by_row, spans=spans), "{SPAN}/*.csv").all_rows()
    assert len(rows) == 180
    assert {row["id"] for row in rows if row["name"] == b"seven"} == {127, 167, 207, 247, 287}
    before = drive(make_settings(query=by_row, spans=spans), "{SPAN}/*.csv")
    names.write_text("short,long\nn7,other!\n")
    after = drive(make_settings(query=by_row, spans=spans), "{SPAN}/*.csv")
    assert before["input_fingerprint"] != after["input_fingerprint"]
    over_span = Query(sql="SELECT id, count(*) OVER () AS x, name FROM rows", over="span")
    made = ingest(make_settings(query=over_span, spans=spans), "{SPAN}/*.csv")
    assert {row["x"] for row in made.all_rows()} == {90.0}
