"""The curated schema: inferred from data, shown as a diff, and checked against the settings."""

import io
import time
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from rich.console import Console
from tensorflow_metadata.proto.v0 import schema_pb2

from components.errors import PipelineStop
from components.features.table import FeatureTable
from components.ingest.settings import CsvFormat
from components.registry.signature import column_types
from pipeline import schema, schema_inference
from pipeline.schema_inference import proposed_schema
from tests import small


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    small.write_csv(path, small.rows(500))
    return path


def test_types_come_from_every_row_and_not_from_the_first(tmp_path: Path) -> None:
    lines = ["a,b,c"] + ["1,2,x"] * 40_000 + ["1.5,zero,x"]
    path = tmp_path / "late.csv"
    path.write_text("\n".join(lines) + "\n")
    types = column_types(proposed_schema([path], None))
    assert types == {"a": "FLOAT", "b": "BYTES", "c": "BYTES"}


def test_parquet_and_other_separators_give_the_schema_that_csv_gives(
    data: Path, tmp_path: Path
) -> None:
    inferred = proposed_schema([data], None)
    parquet, semicolons = tmp_path / "rows.parquet", tmp_path / "semicolons.csv"
    pq.write_table(pyarrow.csv.read_csv(data), parquet)
    semicolons.write_bytes(data.read_bytes().replace(b",", b";"))
    assert proposed_schema([parquet], None) == inferred
    assert proposed_schema([semicolons], None, CsvFormat(separator=";")) == inferred


def test_inferred_schema_fits_what_it_was_inferred_from(data: Path) -> None:
    inferred = proposed_schema([data], None)
    assert schema.diff(inferred, proposed_schema([data], inferred)) == []
    assert column_types(inferred)["hour"] == "INT"
    lines = list(schema.described(inferred))
    half = round(sum(row["method"] != "" for row in small.rows(500)) / 1000, 2)
    assert f"method: BYTES, present in at least {half:.1%} of rows, one of 3" in " ".join(lines)


def test_curated_ranges_stay_and_new_values_show_in_the_diff(data: Path, tmp_path: Path) -> None:
    curated = text_format.Parse(small.schema_text(), schema_pb2.Schema())
    rows = small.rows(500)
    rows[7]["method"] = "gold"
    small.write_csv(data, rows)
    proposed = proposed_schema([data], curated)
    changes = schema.diff(curated, proposed)
    assert [line[:9] for line in changes] == ["- method:", "+ method:"]
    assert "gold" in changes[1]
    hour = next(f for f in proposed.feature if f.name == "hour")
    assert (hour.int_domain.min, hour.int_domain.max) == (0, 23)


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"columns": {"amuont": {"kind": "numeric", "missing": "mean"}}}, "did you mean 'amount'?"),
    ({"columns": {"shop": {"kind": "numeric", "missing": "mean"}}}, "'shop' is text in the schema"),
    ({"slices": [["colour"]]}, "the schema has no column 'colour'"),
    ({"label": {"column": "sold"}}, "the schema has no column 'sold'"),
    ({"exclude": {"leak": "leakage"}}, "column 'when' is neither used nor excluded"),
    (
        {
            "columns": {"amount": {"kind": "numeric", "missing": "mean"}},
            "exclude": {"shop": "bridged"},
        },
        "'shop' is text in the schema; bridged is 1 or 0",
    ),
]


@pytest.mark.parametrize(("changes", "words"), MISFITS, ids=[m[1] for m in MISFITS])
def test_table_that_does_not_fit_the_schema_is_told(changes: dict[str, Any], words: str) -> None:
    settings = small.SETTINGS["features"] | {"crosses": {}} | changes
    types = column_types(text_format.Parse(small.schema_text(), schema_pb2.Schema()))
    problems = schema.table_problems(FeatureTable.model_validate(settings), types)
    assert words in " ".join(message for _, message in problems)


def test_table_that_fits_has_no_problems() -> None:
    table = FeatureTable.model_validate(small.SETTINGS["features"])
    types = column_types(text_format.Parse(small.schema_text(), schema_pb2.Schema()))
    assert list(schema.table_problems(table, types)) == []


def test_file_that_is_no_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pbtxt"
    with pytest.raises(PipelineStop, match="make schema"):
        schema.read_schema(path)
    path.write_text("feature { nme: 'x' }")
    with pytest.raises(PipelineStop, match=r"bad\.pbtxt is not a schema"):
        schema.read_schema(path)


def test_command_writes_only_when_told_to(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.schema.pbtxt"
    settings = [f"schema_file={path}", f"data.path={data.parent}", "data.pattern='*.csv'"]

    def run(write: bool = False) -> str:
        console = Console(file=io.StringIO(), width=200)
        assert schema_inference.main("development", settings, write, console) == 0
        return console.file.getvalue()  # type: ignore[attr-defined]

    assert "+ amount: FLOAT" in run()
    assert not path.exists()
    assert "Review it" in run(write=True)
    assert "fits the data" in run()


@pytest.mark.parametrize(
    ("problem", "classes", "kind", "sentence"),
    [
        ("binary", None, "BYTES", "'y' is text in the schema; name its classes"),
        ("regression", None, "BYTES", "'y' is text in the schema; regression needs a number"),
        ("binary", ["no", "yes"], "INT", "'y' is INT in the schema, and ['no', 'yes'] are not all"),
        ("binary", [0.5, 1], "INT", "'y' is INT in the schema, and [0.5, 1] are not all"),
        ("binary", ["0", 1.0], "INT", None),
        ("multiclass", [1, 2, 3], "FLOAT", None),
        ("binary", None, "FLOAT", None),
    ],
)
def test_a_label_must_be_what_the_schema_says(
    problem: str, classes: list[Any] | None, kind: str, sentence: str | None
) -> None:
    columns = {"x": {"kind": "numeric", "missing": "mean"}}
    label = {"column": "y", "classes": classes}
    table = FeatureTable.model_validate({"problem": problem, "label": label, "columns": columns})
    found = [text for _, text in schema.table_problems(table, {"x": "FLOAT", "y": kind})]
    assert [sentence in text for text in found] == [True] * (sentence is not None)


def test_a_thousand_changed_columns_are_compared_at_once() -> None:
    feature = schema_pb2.Feature
    before, after = schema_pb2.Schema(), schema_pb2.Schema()
    for n in range(1000):
        before.feature.append(feature(name=f"column {n}", type=schema_pb2.INT))
        after.feature.append(feature(name=f"column {n}", type=schema_pb2.FLOAT))
    started = time.process_time()
    assert len(schema.diff(before, after)) == 2000
    assert time.process_time() - started < 2  # line by line it took hours
