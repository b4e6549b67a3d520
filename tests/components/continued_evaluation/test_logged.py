"""Real log files, real label files, the real component, its driver and executor, and real SQL."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.components.statistics_gen import executor as statistics_gen
from tfx.components.util import examples_utils
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import json_utils

from components.continued_evaluation.evidence import Joined
from components.errors import PipelineStop
from components.inference import prediction_log
from tests.components.continued_evaluation.logs import (
    INPUTS,
    Place,
    Row,
    drive,
    execute,
    feature_row,
    read,
)
from tests.components.evaluation import samples

NOTHING = dict.fromkeys(Joined.model_fields, 0)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def joined_of(examples: Any) -> dict[str, int]:
    return json.loads(Path(examples.uri, "joined.json").read_text())


def labels_by_row(rows: list[Row]) -> dict[int, int]:
    """The label of each row, by the number that its features were made from."""
    return {int(row["score"][0] * 4): row["bought"][0] for row in rows}


def as_row(number: int) -> Row:
    """How an example of a row reads."""
    row = feature_row(number)
    lists = {name: [] if value is None else [value] for name, value in row.items()}
    return lists | {"shop": [text.encode() for text in lists["shop"]]}


def by_score(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["score"])


# What is predicted (keys, with the version before "@" if it is another one), the lines of the label
# file, the label that comes out beside each prediction, and the counts.
OUTCOMES: dict[str, tuple[list[Any], str | bytes, list[int | None], dict[str, int]]] = {
    "a label": (["a"], "a,1\n", [1], {"joined": 1}),
    "no label yet": (["b"], "", [None], {"unlabelled": 1}),
    "an integer key": ([7], "7,0\n", [0], {"joined": 1}),
    "whitespace": ([" c\t"], "\tc ,  0 \n", [0], {"joined": 1}),
    "quotes": (["d,\n"], '"d,\n","0"\n', [0], {"joined": 1}),
    "no key": ([None, "", " "], "", [None] * 3, {"without_key": 3}),
    "other versions": (
        ["2@e", "2@f", "4@ "],
        "e,1\ne,0\n",
        [None] * 3,
        {"other_versions": 3, "labels_of_other_versions": 2},
    ),
    "a key of both versions": (
        ["2@g", "g"],
        "g,0\n",
        [None, 0],
        {"joined": 1, "other_versions": 1},
    ),
    "predicted again": (
        ["h", "i", "h", "h"],
        "h,0\n",
        [None, None, None, 0],
        {"joined": 1, "repeated_predictions": 2, "unlabelled": 1},
    ),
    "the same label": (["j"], "j,0\nj,0.0\nj,0\n", [0], {"joined": 1, "repeated_labels": 2}),
    "different labels": (
        ["k"],
        "k,0\nk,1\nk,0\n",
        [None],
        {"conflicting_labels": 3, "unlabelled": 1},
    ),
    "labels of nobody": ([], "l,0\nm,1\nm,0\n", [], {"foreign_labels": 3}),
    "empty labels": (["n"], 'n,\nn,""\nn,  \n', [None], {"empty_labels": 3, "unlabelled": 1}),
    "first empty": (["o"], "o,\no,0\n", [0], {"empty_labels": 1, "joined": 1}),
    "no labels": (
        ["p"],
        b"p,yes\np,2\np,-1\np,0.5\np,nan\np,1,9\np\np,\xff\n\xff,1\np,\xff,1\n",
        [None],
        {"malformed_labels": 9, "empty_labels": 1, "unlabelled": 1},
    ),
    "first malformed": (["q"], "q,x\nq,0\n", [0], {"malformed_labels": 1, "joined": 1}),
    "no key of a label": (["r"], ",1\n  ,0\n", [None], {"labels_without_key": 2, "unlabelled": 1}),
}


def test_each_outcome_is_counted(place: Place) -> None:
    """And every row that is read: in files of every other line, each with a header."""
    files, total = [b"id,outcome\n", b"id,outcome\n"], Counter(NOTHING)
    expected: list[int | None] = []
    for keys, labels, beside, counts in OUTCOMES.values():
        for key, label in zip(keys, beside, strict=True):
            version, at, rest = str(key).partition("@")
            row = [feature_row(len(expected))]
            place.predict([rest if at else key], row, int(version) if at else 3)
            expected.append(label)
        body = labels.encode() if isinstance(labels, str) else labels
        whole = b'"' in body
        for number, line in enumerate([body] if whole else body.splitlines(keepends=True)):
            files[number % 2] += line
        total.update(counts)
    for number, body in enumerate(files):
        place.write_labels(f"{number}.csv", body)
    made = execute(place.labelled_log(), place.folder / "made")
    assert labels_by_row(read(made, "test")) == {
        row: label for row, label in enumerate(expected) if label is not None
    }
    counts = joined_of(made)
    assert counts == total
    of_predictions = ["unlabelled", "repeated_predictions", "without_key", "other_versions"]
    assert sum(counts[name] for name in ["joined", *of_predictions]) == len(expected)
    of_labels = counts.keys() - {*of_predictions, "without_features"}
    lines = sum(len(re.findall(rb'\n(?!",)', body)) - 1 for body in files)
    assert sum(counts[name] for name in of_labels) == lines


def test_the_artifact_and_its_examples_are_as_the_ingest_makes_them(place: Place) -> None:
    place.predict(["a", "b"], [feature_row(0), feature_row(1)], predictions=[[0.5, 0.25], [1, 0]])
    place.write_labels("7/v1/x.csv", "id,outcome\na,0\n")
    place.write_labels("7/v2/x.csv.gz", "\ufeffnote,outcome,id\r\nx,1,a\r\nx,0,b\r\n")
    place.write_labels("8/v1/x.csv", "id,outcome\na,0\n")
    labels = {"pattern": "{SPAN}/v{VERSION}/*.csv*"}
    left = place.folder / "made" / "Split-test" / "data_tfrecord-00007-of-00009.gz"
    left.parent.mkdir(parents=True)
    left.write_text("of an attempt that was cut short")
    made = execute(place.labelled_log(labels=labels, span="7"), place.folder / "made")
    assert by_score(read(made, "test")) == [
        as_row(0) | {"bought": [1], "__prediction": [0.5, 0.25], "__version": [3]},
        as_row(1) | {"bought": [0], "__prediction": [1.0, 0.0], "__version": [3]},
    ]
    assert json.loads(made.split_names) == ["test"]
    assert examples_utils.get_payload_format(made) == example_gen_pb2.FORMAT_TF_EXAMPLE
    assert examples_utils.get_file_format(made) == "tfrecords_gzip"
    numbers = {"span": 7, "version": 2, "rows_test": 2, "judged_version": 3}
    assert {n: made.get_int_custom_property(n) for n in numbers} == numbers
    assert json.loads(made.get_string_custom_property("spans")) == [7]
    columns = ["hour", "score", "shop"]
    assert json.loads(made.get_string_custom_property("logged_columns")) == columns


TABLES = {
    "classes of text": (
        {"problem": "multiclass", "label": samples.MOODS, "exclude": {}},
        ["glad", " sad ", "angry", ""],
        {"mood": [[b"glad"], [b"sad"]]},
        {"malformed_labels": 1, "empty_labels": 1},
    ),
    "a number to predict": (
        {"problem": "regression", "label": {"column": "score"}, "columns": {}},
        ["2.5", "-1e3", "nan", "1e99", "inf", "much"],
        {"score": [[2.5], [-1000.0]]},
        {"malformed_labels": 3, "empty_labels": 1},
    ),
    "classes of numbers": (
        {"label": {"column": "hour", "classes": [8, 20]}, "columns": {}},
        ["8", "20.0", "9"],
        {"hour": [[8], [20]]},
        {"malformed_labels": 1},
    ),
}


@pytest.mark.parametrize(("table", "labels", "expected", "counts"), TABLES.values(), ids=TABLES)
def test_labels_have_the_type_and_name_of_the_schema(
    place: Place, table: Row, labels: list[str], expected: Row, counts: dict[str, int]
) -> None:
    features = {**samples.TABLE.model_dump(mode="json"), **table}
    features["columns"] = {"shop": {"kind": "vocabulary", "missing": "own"}}
    rows = [feature_row(number) for number in range(len(labels))]
    place.predict([*range(len(labels))], rows, exclude=["score", "hour"])
    body = "".join(f"{number},{label}\n" for number, label in enumerate(labels))
    place.write_labels("1.csv", f"id,outcome\n{body}")
    component = place.labelled_log(features=json.dumps(features))
    made = execute(component, place.folder / "made")
    ((name, values),) = expected.items()
    assert sorted(row[name] for row in read(made, "test")) == sorted(values)
    assert joined_of(made) == {**NOTHING, "joined": 2, "unlabelled": len(labels) - 2, **counts}


def test_the_last_prediction_counts_wherever_it_is_in_the_last_days(place: Place) -> None:
    for hour in (13, 18, 11):  # one file each
        place.predict(["a"], [feature_row(hour)], time=f"2026-03-10T{hour}:00")
    place.predict(["c", "c", "c"], [feature_row(1), feature_row(2), feature_row(3)])
    for key, day in (("b", "2026-03-09"), ("old", "2026-03-08"), ("old", "2026-02-01")):
        place.predict([key], [feature_row(int(day[-1]))], time=f"{day}T23:59")
    (place.log / "small" / "notes").mkdir()
    (place.log / "small" / "notes" / "x.parquet").write_text("no log")
    place.write_labels("1.csv", "id,outcome\na,1\nb,1\nc,1\nold,1\n")
    made = execute(place.labelled_log(labels={"days": 2}), place.folder / "made")
    assert labels_by_row(read(made, "test")) == {18: 1, 9: 1, 3: 1}
    told = {"joined": 3, "repeated_predictions": 4, "foreign_labels": 1}
    assert joined_of(made) == {**NOTHING, **told}


def test_a_column_that_is_not_logged_is_missing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any, predictions can be judged alone."""
    place.predict(["a"], [feature_row(1)], exclude=["shop"])
    place.predict(["b"], [feature_row(2)], exclude=["hour"])
    place.write_labels("1.csv", "id,outcome\na,1\nb,0\nc,1\n")
    made = execute(place.labelled_log(), place.folder / "made")
    by_label = {row["bought"][0]: row for row in read(made, "test")}
    assert not by_label[1]["shop"]
    assert by_label[1]["hour"] == [1]
    assert not by_label[0]["hour"]
    assert json.loads(made.get_string_custom_property("logged_columns")) == ["score"]
    assert caplog.text == ""
    place.predict(["c"], [feature_row(3)], exclude=["score", "shop", "hour"])
    made = execute(place.labelled_log(), place.folder / "again")
    assert "1 of 3 joined predictions have no logged features" in caplog.text
    bare = {"bought": [1], "__version": [3], "__prediction": [pytest.approx(0.0075)]}
    assert bare in [{n: v for n, v in row.items() if v} for row in read(made, "test")]
    assert joined_of(made) == {**NOTHING, "joined": 3, "without_features": 1}
    assert made.get_string_custom_property("logged_columns") == "[]"


def _bad_log(place: Place) -> None:
    place.predict(["a"], [feature_row(1)])
    (place.log / "small" / "2026-03-10" / "x.parquet").write_bytes(b"PAR1")


def _other_keys(place: Place) -> None:
    place.predict(["b7", "b8", None], [feature_row(n) for n in range(3)])
    place.predict(["other"], [feature_row(9)], version=2)


def _one_key(place: Place) -> None:
    place.predict(["a"], [feature_row(1)])


GOOD = "id,outcome\na,1\n"
BAD: dict[str, tuple[Any, str, Row, list[str]]] = {
    "no log": (
        lambda place: None,
        *(GOOD, {}, ["There is no prediction log in", "/predictions/small", "enabled"]),
    ),
    "no labels": (_one_key, "", {}, ["No file in", "continued_evaluation.labels.pattern."]),
    "no folder": (
        *(_one_key, GOOD, {"labels_folder": "/no/such"}),
        ["The folder /no/such does not exist. Correct continued_evaluation.labels.path."],
    ),
    "no span": (
        *(_one_key, GOOD, {"span": "7", "labels": {"pattern": "{SPAN}.csv"}}),
        ["the span asks for 7, but there is no 7 in", "There are: 1."],
    ),
    "no number": (_one_key, GOOD, {"span": "new"}, ["The span is 'new'"]),
    "no champion": (_one_key, GOOD, {"version": 0}, ["There are no versions in"]),
    "other keys": (
        *(_other_keys, "id,outcome\n9,1\n007,1\n007,1\n", {}),
        [
            "with a prediction of version 3: 2 unlabelled, 1 without key, 1 other versions, "
            "3 foreign labels. The log has the key 'b7' of this version, and the files have "
            "labels of the key '007'."
        ],
    ),
    "only empty labels": (
        *(_one_key, "id,outcome\na,\n", {}),
        ["1 unlabelled, 1 empty labels", "the files have no other labels"],
    ),
    "other columns": (
        *(_one_key, "Id,result\na,1\n", {}),
        [
            "continued_evaluation.labels.key is 'id', and the file has no such column; "
            "continued_evaluation.labels.label is 'outcome', and the file has no such column. "
            "Its columns: Id, result."
        ],
    ),
    "an open quote": (_one_key, 'id,outcome\na,"1\nb,1\n', {}, ["is not closed"]),
    "a damaged log": (_bad_log, GOOD, {}, ["The prediction log cannot be read", "x.parquet"]),
    "another type": (
        *(_one_key, GOOD),
        {"columns": samples.TYPES | {"score": "INT", "shop": "FLOAT"}},
        [
            "The log of version 3 does not fit the schema: 'score' is FLOAT and in the schema INT, "
            "'shop' is BYTES and in the schema FLOAT."
        ],
    ),
}


@pytest.mark.parametrize(("log", "labels", "changes", "parts"), BAD.values(), ids=BAD)
def test_what_cannot_be_joined_is_told(
    place: Place, log: Any, labels: str, changes: Row, parts: list[str]
) -> None:
    log(place)
    if labels:
        place.write_labels("1.csv", labels)
    with pytest.raises(PipelineStop) as stop:
        execute(place.labelled_log(**changes), place.folder / "made")
    assert not [part for part in parts if part not in str(stop.value)]
    assert not list((place.folder / "made").glob("Split-*"))


def test_labels_that_change_after_the_driver_stop_the_run_and_a_growing_log_does_not(
    place: Place,
) -> None:
    place.predict(["a"], [feature_row(1)])
    place.write_labels("1.csv", "id,outcome\na,1\nb,1\n")
    component = place.labelled_log()
    found = drive(component)
    place.predict(["b"], [feature_row(2)])
    made = execute(component, place.folder / "made", found)
    assert joined_of(made)["joined"] == 2
    place.write_labels("1.csv", "id,outcome\na,0\nb,0\n\n")
    with pytest.raises(PipelineStop, match="have changed since the run began"):
        execute(component, place.folder / "again", found)


def test_what_the_driver_finds_for_the_cache_changes_with_log_labels_and_champion(
    place: Place,
) -> None:
    registry = place.folder / "registry" / "small"
    for version in (3, 4):
        (registry / str(version)).mkdir(parents=True)
    (registry / "labels.json").write_text('{"labels": {"champion": 3}}')
    path = place.write_labels("1.csv", "id,outcome\na,1\n")
    changes: list[Callable[[], object]] = [
        lambda: place.predict(["a"], [feature_row(1)]),
        lambda: None,
        lambda: place.predict(["b"], [feature_row(2)]),
        lambda: os.utime(path, (1, 1)),
        lambda: (registry / "labels.json").write_text('{"labels": {"champion": 4}}'),
    ]
    found: dict[str, list[str]] = {"labelled": [], "served": []}
    for change in changes:
        change()
        found["labelled"].append(drive(place.labelled_log(version=0))["found"])
        found["served"].append(drive(place.served_inputs(version=0))["found"])
    differ = {kind: [one != other for one, other in pairwise(seen)] for kind, seen in found.items()}
    assert differ["labelled"] == [False, True, True, True]
    assert differ["served"] == [False, True, False, True]
    assert [json.loads(one)["version"] for one in found["labelled"]] == [3, 3, 3, 3, 4]


def test_label_files_of_another_form(place: Place) -> None:
    place.predict(["ä", "b"], [feature_row(0), feature_row(1)])
    place.write_labels("1.csv", "id;größe\nä;1\nb;0\n".encode("latin-1"))
    pq.write_table(pa.table({"id": ["b"], "größe": [0]}), place.labels / "2.csv.parquet")
    form = {"separator": ";", "encoding": "latin-1"}
    made = execute(
        place.labelled_log(labels={"label": "größe", "csv": form}), place.folder / "made"
    )
    assert labels_by_row(read(made, "test")) == {0: 1, 1: 0}
    assert joined_of(made) == {**NOTHING, "joined": 2, "repeated_labels": 1}


_ATTEMPT = """
import json, sys
from pathlib import Path
from tests.components.continued_evaluation.logs import Place, execute
place = Place.__new__(Place)
place.folder = Path(sys.argv[1])
place.log, place.labels = place.folder / "predictions", place.folder / "labels"
execute(place.labelled_log(), place.folder / "made")
"""


@pytest.mark.prove
def test_a_killed_executor_leaves_nothing_half_written(place: Place) -> None:
    rows, made = 10_000, place.folder / "made"
    place.predict([*range(rows)], [feature_row(number) for number in range(rows)])
    body = "".join(f"{number},{number % 2}\n" for number in range(rows))
    place.write_labels("1.csv", f"id,outcome\n{body}")
    with subprocess.Popen(
        [sys.executable, "-c", _ATTEMPT, str(place.folder)],
        cwd=Path(prediction_log.__file__).parents[2],
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(made.glob(".tmp-*/*.gz")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(made) == [".tmp-Split-test"]
    again = execute(place.labelled_log(), made)
    assert len(read(again, "test")) == rows
    assert sorted(os.listdir(made)) == ["Split-test", "joined.json"]


def test_every_row_of_the_version_is_an_example_of_its_features_alone(place: Place) -> None:
    place.predict(["a", "a", None], [feature_row(number) for number in range(3)])
    place.predict(None, [feature_row(3)], time="2026-03-09T00:00")
    place.predict(["old"], [feature_row(4)], time="2026-03-08T23:59")
    place.predict(["b"], [feature_row(5)], version=2)
    made = execute(place.served_inputs(days=2), place.folder / "made")
    assert by_score(read(made, "served")) == [as_row(number) for number in range(4)]
    assert json.loads(made.split_names) == ["served"]
    assert made.get_int_custom_property("rows_served") == 4
    assert made.get_int_custom_property("judged_version") == 3
    assert made.get_string_custom_property("file_format") == "tfrecords_gzip"
    assert os.listdir(made.uri) == ["Split-served"]


def test_only_what_is_logged_is_there_and_there_may_be_nothing(place: Place) -> None:
    for name in ("no log", "nothing"):
        made = execute(place.served_inputs(), place.folder / name)
        assert read(made, "served") == []
        assert made.get_int_custom_property("rows_served") == 0
        place.predict(["a"], [feature_row(1)], version=2)
    place.predict(["a"], [feature_row(1)], exclude=["shop"])
    place.predict(["b"], [feature_row(2)], exclude=[*INPUTS])
    made = execute(place.served_inputs(), place.folder / "made")
    assert read(made, "served") == [{"score": [0.25], "hour": [1]}]
    assert made.get_int_custom_property("rows_served") == 1


@pytest.mark.prove
def test_statistics_gen_reads_them_also_if_there_are_none(place: Place) -> None:
    folder, examples = place.folder, execute(place.served_inputs(), place.folder / "nothing")
    made = samples.artifact(standard_artifacts.ExampleStatistics, folder / "statistics")
    statistics_gen.Executor(samples.context(folder)).Do(
        {"examples": [examples]}, {"statistics": [made]}, {"exclude_splits": json_utils.dumps([])}
    )
    found = statistics_pb2.DatasetFeatureStatisticsList()
    path = Path(artifact_utils.get_split_uri([made], "served"), "FeatureStats.pb")
    found.ParseFromString(path.read_bytes())
    assert found.datasets[0].num_examples == 0
