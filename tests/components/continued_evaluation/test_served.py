"""What a version was given, out of real log files, through real Beam, into real statistics."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import types
from tfx.components.statistics_gen import executor as statistics_gen
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import json_utils

from components.errors import PipelineStop
from tests.components.continued_evaluation.logs import (
    INPUTS,
    Place,
    Row,
    context,
    drive,
    execute,
    feature_row,
    read,
)
from tests.components.evaluation import samples


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def as_row(number: int) -> Row:
    """How an example of a row reads."""
    row = feature_row(number)
    lists = {name: [] if value is None else [value] for name, value in row.items()}
    return lists | {"shop": [text.encode() for text in lists["shop"]]}


def by_score(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["score"])


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


def test_only_what_is_logged_is_there(place: Place) -> None:
    place.predict(["a"], [feature_row(1)], exclude=["shop"])
    place.predict(["b"], [feature_row(2)], exclude=[*INPUTS])
    made = execute(place.served_inputs(), place.folder / "made")
    assert read(made, "served") == [{"score": [0.25], "hour": [1]}]
    assert made.get_int_custom_property("rows_served") == 1


def _other_version(place: Place) -> None:
    place.predict(["a"], [feature_row(1)], version=2)


@pytest.mark.parametrize("prepare", [lambda place: None, _other_version])
def test_without_predictions_of_the_version_the_split_is_empty(place: Place, prepare: Any) -> None:
    prepare(place)
    made = execute(place.served_inputs(), place.folder / "made")
    assert read(made, "served") == []
    assert made.get_int_custom_property("rows_served") == 0


def statistics_of(examples: types.Artifact, folder: Path) -> Any:
    """What StatisticsGen makes of the split."""
    made = samples.artifact(standard_artifacts.ExampleStatistics, folder / "statistics")
    statistics_gen.Executor(context(folder)).Do(
        {"examples": [examples]}, {"statistics": [made]}, {"exclude_splits": json_utils.dumps([])}
    )
    found = statistics_pb2.DatasetFeatureStatisticsList()
    path = Path(artifact_utils.get_split_uri([made], "served"), "FeatureStats.pb")
    found.ParseFromString(path.read_bytes())
    return found.datasets[0]


def test_statistics_gen_reads_them_also_if_there_are_none(place: Place) -> None:
    nothing = execute(place.served_inputs(), place.folder / "nothing")
    assert statistics_of(nothing, place.folder).num_examples == 0
    place.predict(None, [feature_row(number) for number in range(10)])
    statistics = statistics_of(execute(place.served_inputs(), place.folder / "made"), place.folder)
    assert statistics.num_examples == 10
    by_name = {feature.path.step[0]: feature for feature in statistics.features}
    assert {*by_name} == {*INPUTS}
    assert by_name["hour"].num_stats.common_stats.num_missing == 2
    assert by_name["score"].num_stats.mean == pytest.approx(9 / 8)


def test_what_the_driver_finds_changes_with_log_and_champion_alone(place: Place) -> None:
    place.predict(["a"], [feature_row(1)])
    before = drive(place.served_inputs())["found"]
    place.write_labels("1.csv", "no labels are needed")
    assert drive(place.served_inputs())["found"] == before
    assert drive(place.served_inputs(version=2))["found"] != before
    place.predict(["b"], [feature_row(2)])
    assert drive(place.served_inputs())["found"] != before
    with pytest.raises(PipelineStop, match="There are no versions in"):
        drive(place.served_inputs(version=0))


def test_a_damaged_file_of_the_log_is_told(place: Place) -> None:
    place.predict(["a"], [feature_row(1)])
    (place.log / "small" / "2026-03-10" / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(PipelineStop, match=r"x.parquet cannot be read"):
        execute(place.served_inputs(), place.folder / "made")
