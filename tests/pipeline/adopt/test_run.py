"""Adopting files: what is written, what is refused."""

import csv
import io
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from components.errors import PipelineStop
from pipeline import loading
from pipeline.adopt import reading, writing
from pipeline.adopt.request import Request
from pipeline.adopt.run import adopt
from pipeline.run import check_against_schema
from tests import small

TAXI = "tfx/examples/chicago_taxi_pipeline/data/big_tipper_label/data.csv"
HOSTILE = [
    "net price", "naïve", "日本語", "it's", 'say "hi"', "a.b", "1st", "class", "no", "null", "1e3",
    "a: b", "#x", "- y", "{z}", "[w]", "&v", "*u", "!t", "%s", "@r", "`q", "true", "~", "a,b",
    "a/b", "\\p", "é", "🙂", "x" * 300, "key", "self", "<<", "?", "=", "2024-01-01", "0x1f",
]  # fmt: skip


def write(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def table(path, rows=300):
    small.write_csv(path, small.rows(rows))
    return str(path)


def adopted(folder, data, label, name="mine", **options):
    """What the person reads, and the configuration that was written."""
    printed = io.StringIO()
    configs = folder / "configs"
    configs.mkdir(exist_ok=True)
    request = Request(data, label, name, **options)
    assert adopt(request, Console(file=printed, width=200), configs) == 0
    config = loading.load(name, configs=configs)
    check_against_schema(config)
    return printed.getvalue(), config


def refusal(folder, data, label, **options):
    """The message to the person; nothing is written."""
    configs = folder / "configs"
    configs.mkdir(exist_ok=True)
    with pytest.raises(PipelineStop) as stop:
        adopt(Request(str(data), label, **options), Console(file=io.StringIO()), configs)
    assert list(configs.iterdir()) == []
    return str(stop.value)


def test_the_taxi(tmp_path):
    printed, config = adopted(tmp_path, f"package:{TAXI}", "big_tipper")
    features = config.features
    assert config.data.path == f"package:{TAXI.removesuffix('/data.csv')}"

    assert features.problem == "binary"
    assert features.exclude["tips"] == "leakage"
    assert features.exclude["trip_start_timestamp"] == "time"
    assert features.exclude["pickup_census_tract"] == "sparse"
    assert features.columns["fare"].kind == "numeric"
    assert features.columns["trip_start_hour"].kind == "vocabulary"
    assert features.columns["dropoff_census_tract"].embed
    assert features.slices[0] == ["payment_type"]
    assert "tips: alone reaches AUC" in printed
    assert "make run-local CONFIG=mine" in printed
    text = (tmp_path / "configs" / "mine.yaml").read_text()
    assert "time: trip_start_timestamp" in text


def test_any_header_becomes_a_configuration(tmp_path):
    rows = [[(n * (i + 3)) % 89 / 8 for i in range(len(HOSTILE))] + [n % 2] for n in range(200)]
    data = write(tmp_path / "rows.csv", [*HOSTILE, "off"], rows)
    _, config = adopted(tmp_path, data, "off")

    assert {config.features.column_of(name) for name in config.features.columns} == set(HOSTILE)


def test_options_overrule(tmp_path):
    data = table(tmp_path / "rows.csv")
    _, plain = adopted(tmp_path, data, "bought")
    options = {"keep": ("leak",), "exclude": ("shop",), "time": "when"}
    _, config = adopted(tmp_path, data, "bought", "other", **options)

    assert plain.features.exclude == {"leak": "leakage", "when": "time"}
    assert (plain.features.key, plain.data.split.by) == (None, "row")
    assert config.features.exclude == {"shop": "choice", "when": "time"}
    assert (config.data.split.by, config.data.split.time) == ("time", "when")
    assert "leak" in config.features.columns


def test_an_id_becomes_the_key(tmp_path):
    data = write(
        tmp_path / "rows.csv", ["order", "x", "y"], [[f"o{n}", n % 17, n % 2] for n in range(400)]
    )
    _, config = adopted(tmp_path, data, "y")

    assert (config.features.key, config.data.split.key) == ("order", ["order"])
    assert list(config.features.columns) == ["x"]


def test_rows_of_one_customer_stay_together(tmp_path):
    data = write(tmp_path / "rows.csv", ["who", "x", "y"], [[f"c{n // 4}", n % 17, n % 2]
                                                           for n in range(400)])  # fmt: skip
    _, config = adopted(tmp_path, data, "y", key="who")

    assert config.features.key is None
    assert config.data.split.key == ["who"]
    assert config.features.exclude == {"who": "id"}


def test_other_formats(tmp_path):
    rows = small.rows(300)
    pq.write_table(pa.Table.from_pylist(
        [{k: None if v == "" else v for k, v in row.items()} for row in rows]
    ), tmp_path / "rows.parquet")  # fmt: skip
    small.write_csv(tmp_path / "rows.csv", rows)
    text = (tmp_path / "rows.csv").read_text().replace(",", ";").replace("card", "Käse")
    (tmp_path / "latin.csv").write_text(text, encoding="latin-1")
    _, comma = adopted(tmp_path, str(tmp_path / "rows.csv"), "bought", "comma")
    _, parquet = adopted(tmp_path, str(tmp_path / "rows.parquet"), "bought", "parquet")
    _, latin = adopted(tmp_path, str(tmp_path / "latin.csv"), "bought", "latin", separator=";",
                       encoding="latin-1")  # fmt: skip

    assert parquet.features == comma.features
    assert latin.features.columns == comma.features.columns
    assert (latin.data.csv.separator, latin.data.csv.encoding) == (";", "latin-1")


def test_a_folder_and_a_pattern_are_read_whole(tmp_path):
    for day in ("1", "2"):
        table(tmp_path / "in" / day / "rows.csv", 200)
    _, config = adopted(tmp_path, f"{tmp_path}/in/*/*.csv", "bought", "pattern")
    _, folder = adopted(tmp_path, f"{tmp_path}/in/1", "bought", "folder")

    assert (config.data.path, config.data.pattern) == (f"{tmp_path}/in", "*/*.csv")
    assert (folder.data.path, folder.data.pattern) == (f"{tmp_path}/in/1", "*.csv")
    assert "from 400 rows" in (tmp_path / "configs" / "pattern.yaml").read_text()


def test_data_inside_the_project_keeps_a_relative_path():
    inside = loading.PROJECT / "tests" / "pipeline" / "adopt" / "test_run.py"

    assert reading.find(str(inside)).path == "tests/pipeline/adopt"


def test_rows_without_a_label(tmp_path):
    rows = [[n % 17, n % 2 if n % 20 else ""] for n in range(400)]
    data = write(tmp_path / "rows.csv", ["x", "y"], rows)
    told = refusal(tmp_path, data, "y")
    _, config = adopted(tmp_path, data, "y", quarantine=True)

    assert "empty in 20 of 400 rows (5.0%)" in told
    assert "data.bad_rows" in told
    assert config.data.bad_rows.action == "quarantine"
    assert config.data.bad_rows.at_most >= 0.05


@pytest.mark.parametrize(
    ("header", "row", "label", "options", "words"),
    [
        ("x,y", "{n},{bit}", "Y", {}, "did you mean 'y'"),
        ("x,y", "{n},{bit}", "z", {"keep": ("w",)}, "2 things are wrong"),
        ("x,y", "{n},1", "y", {}, "always '1'"),
        ("x,y", "{n},", "y", {}, "empty in all rows"),
        ("x,x,y", "1,2,{bit}", "y", {}, "'x' is there 2 times"),
        ("x;y", "{n};{bit}", "y", {}, "separator"),
        ("y", "{bit}", "y", {}, "one column only"),
        ("x,y", "7,{bit}", "y", {}, "No column is left"),
        ("x,y", "{n},{bit}", "y", {"name": "Mein Name"}, "lower-case"),
        ("x,y", "{n},{bit}", "y", {"key": "y"}, "that is the label"),
        ("x,y", "{n},text {n}", "y", {}, "more than 100"),
        ("x,t,y", "{n},{n}.12.2024,{bit}", "y", {"time": "t"}, "do not sort by time"),
        ("x,t,y", "{n},,{bit}", "y", {"time": "t"}, "is empty in 300 rows"),
        ("x,y", "1e39,{bit}", "y", {}, "too large for float32"),
    ],
)
def test_what_cannot_be_adopted_is_refused(tmp_path, header, row, label, options, words):
    lines = [header, *(row.format(n=n * 7 % 101, bit=n % 2) for n in range(300))]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")

    assert words in refusal(tmp_path, tmp_path / "rows.csv", label, **options)


def test_files_that_are_not_there_or_not_readable(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.csv").write_bytes("x,y\nKäse,1\n".encode("latin-1") * 50)

    assert "There is no file" in refusal(tmp_path, tmp_path / "no.csv", "y")
    assert "no package 'nobody' is installed" in refusal(tmp_path, "package:nobody/x.csv", "y")
    assert "2 things are wrong" in refusal(tmp_path, "", "")
    table(tmp_path / "both" / "a.csv")
    table(tmp_path / "both" / "b.csv.gz")

    assert "no data files" in refusal(tmp_path, tmp_path / "empty", "y")
    assert ".csv and in .csv.gz" in refusal(tmp_path, tmp_path / "both", "y")
    assert "encoding" in refusal(tmp_path, tmp_path / "latin.csv", "y")


def test_too_few_rows_are_refused_with_the_number_that_is_needed(tmp_path):
    few = write(tmp_path / "few.csv", ["x", "y"], [[n, n % 2] for n in range(30)])
    rare = write(tmp_path / "rare.csv", ["x", "y"], [[n * 7 % 99, n == 5] for n in range(200)])

    assert "At least 40" in refusal(tmp_path, few, "y")
    assert "none of the 1 rows with the label" in refusal(tmp_path, rare, "y")


def test_nothing_is_overwritten(tmp_path):
    data = table(tmp_path / "rows.csv")
    adopted(tmp_path, data, "bought")
    before = {path: path.read_bytes() for path in (tmp_path / "configs").iterdir()}
    with pytest.raises(PipelineStop, match="choose another --name"):
        adopted(tmp_path, data, "bought")

    assert {path: path.read_bytes() for path in (tmp_path / "configs").iterdir()} == before


def test_a_dry_run_writes_nothing(tmp_path):
    printed = io.StringIO()
    request = Request(table(tmp_path / "rows.csv"), "bought", dry_run=True)
    adopt(request, Console(file=printed, width=200), tmp_path)

    assert "nothing written" in printed.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


KILLED = r"""
import os, sys
from pathlib import Path
from pipeline.adopt import writing
replace, calls = os.replace, []
def killing(*paths):
    if len(calls) == int(sys.argv[2]):
        os._exit(9)
    calls.append(replace(*paths))
os.replace = killing
folder = Path(sys.argv[1])
writing.write(folder / "a.yaml", "name: a\n", folder / "a.schema.pbtxt", "")
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_while_writing_leaves_no_configuration_and_the_same_command_goes_on(
    tmp_path, renames
):
    arguments = [sys.executable, "-c", KILLED, str(tmp_path)]
    killed = subprocess.run([*arguments, str(renames)], cwd=loading.PROJECT)
    config, schema = tmp_path / "a.yaml", tmp_path / "a.schema.pbtxt"
    left = loading.names(tmp_path)
    free = writing.what_is_there(config, schema)
    again = subprocess.run([*arguments, "2"], cwd=loading.PROJECT)

    assert (killed.returncode, left, free, again.returncode) == (9, [], [], 0)
    assert config.exists() and schema.exists()
    assert writing.what_is_there(config, schema)


def test_a_schema_of_a_persons_own_is_not_taken_for_one_left_behind(tmp_path):
    schema = tmp_path / "a.schema.pbtxt"
    schema.write_text("# mine\n")

    assert writing.what_is_there(tmp_path / "a.yaml", schema)


VALUES = st.one_of(
    st.none(), st.integers(-5, 5), st.integers(-(10**20), 10**20),
    st.floats(-1e30, 1e30), st.booleans(),
    st.sampled_from(["", "a", "b", "yes", "no", "2024-01-01", " ", "'", '"', "a\nb", "é🙂"]),
    st.text(max_size=8),
)  # fmt: skip
LABELS = st.one_of(
    st.lists(st.text("abß🙂 '\":#,1.", min_size=1), min_size=2, max_size=5, unique=True),
    st.lists(st.integers(-3, 9), min_size=2, max_size=9, unique=True),
    st.lists(st.floats(-9, 9, width=16), min_size=2, max_size=30, unique=True),
    st.sampled_from([["True", "False"], ["no", "yes"], [0, 1], ["1.0", "0.0"], [1, 10**15]]),
)
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=12))


@st.composite
def tables(draw):
    """A header, and rows: a number first, columns that draw from a few values, the label last."""
    header = draw(st.lists(NAMES, min_size=3, max_size=6, unique=True))
    pools = [draw(st.lists(VALUES, min_size=1, max_size=5)) for _ in header[2:]]
    label = draw(LABELS)
    count = draw(st.integers(60, 120))
    chance = random.Random(draw(st.integers(0, 99)))
    return header, [
        [chance.gauss(0, 1), *(chance.choice(pool) for pool in pools), label[n % len(label)]]
        for n in range(count)
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables())
def test_any_table_gives_a_configuration_that_fits_its_schema_or_a_message(drawn):
    header, rows = drawn
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder) / "rows.csv", header, rows)
        try:
            adopted(Path(folder), data, header[-1])
        except PipelineStop as stop:
            assert "The configuration" not in str(stop)
