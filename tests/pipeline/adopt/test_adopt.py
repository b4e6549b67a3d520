"""Adopting files: what is written, what is refused."""

import csv
import datetime
import io
import json
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
from pipeline.adopt import table, writing
from pipeline.adopt.part import Request
from pipeline.run import check_against_schema
from tests import small

TAXI = "tfx/examples/chicago_taxi_pipeline/data/big_tipper_label/data.csv"
HOSTILE = [
    "net price", "naïve", "日本語", "it's", 'say "hi"', "a.b", "1st", "class", "no", "null", "1e3",
    "a: b", "#x", "- y", "{z}", "[w]", "&v", "*u", "!t", "%s", "@r", "`q", "true", "~", "a,b",
    "a/b", "\\p", "é", "🙂", "x" * 300, "key", "self", "<<", "?", "=", "2024-01-01", "0x1f",
    "Class",
]  # fmt: skip


def write(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def adopted(folder, data, label, name="mine", **options):
    """What the person reads, and the configuration that was written."""
    printed = io.StringIO()
    configs = folder / "configs"
    configs.mkdir(exist_ok=True)
    request = Request(str(data), label, name, **options)
    assert writing.adopt(request, Console(file=printed, width=200), configs) == 0
    config = loading.load(name, configs=configs)
    check_against_schema(config)
    return " ".join(printed.getvalue().split()), config


def refusal(folder, data, label, **options):
    """The message to the person; nothing is written."""
    configs = folder / "configs"
    configs.mkdir(exist_ok=True)
    with pytest.raises(PipelineStop) as stop:
        writing.adopt(Request(str(data), label, **options), Console(file=io.StringIO()), configs)
    assert list(configs.iterdir()) == []
    return str(stop.value)


def test_the_taxi(tmp_path):
    printed, config = adopted(tmp_path, f"package:{TAXI}", "big_tipper")
    features = config.features
    assert config.data.path == f"package:{TAXI.removesuffix('/data.csv')}"
    assert features.problem == "binary"
    assert features.exclude["tips"] == "leakage"
    assert features.columns["trip_start_timestamp_weekday"].format == "seconds"
    assert features.exclude["pickup_census_tract"] == "sparse"
    assert features.columns["fare"].kind == "numeric"
    assert features.columns["trip_start_hour"].kind == "vocabulary"
    assert features.columns["dropoff_census_tract"].kind == "hashed"
    assert features.slices[0] == ["payment_type"]
    assert "tips: alone reaches AUC" in printed
    assert "make run-local CONFIG=mine" in printed
    assert "time: trip_start_timestamp" in (tmp_path / "configs" / "mine.yaml").read_text()


def test_any_header_becomes_a_configuration(tmp_path):
    rows = [[(n * (i + 3)) % 89 / 8 for i in range(len(HOSTILE))] + [n % 2] for n in range(200)]
    _, config = adopted(tmp_path, write(tmp_path / "rows.csv", [*HOSTILE, "off"], rows), "off")
    assert {config.features.column_of(name) for name in config.features.columns} == set(HOSTILE)


def test_options_overrule(tmp_path):
    small.write_csv(tmp_path / "rows.csv", small.rows(300))
    _, plain = adopted(tmp_path, tmp_path / "rows.csv", "bought")
    options = {"keep": ("leak",), "exclude": ("shop",), "time": "when"}
    _, config = adopted(tmp_path, tmp_path / "rows.csv", "bought", "other", **options)
    assert plain.features.exclude == {"leak": "leakage"}
    assert plain.features.columns["when_hour"].column == "when"
    assert (plain.features.key, plain.data.split.by) == (None, "row")
    assert config.features.exclude == {"shop": "choice"}
    assert (config.data.split.by, config.data.split.time) == ("time", "when")
    assert "leak" in config.features.columns


@pytest.mark.parametrize(
    ("first", "options", "key", "split", "excluded"),
    [
        (lambda n: f"o{n}", {}, "first", ["first"], {}),
        (lambda n: f"c{n * 7 % 100}", {"key": "first"}, None, ["first"], {"first": "id"}),
        (lambda n: 1000 + n // 4, {}, None, ["first"], {"first": "id"}),
        (lambda n: n * 37 % 83, {}, None, [], {}),
    ],
)
def test_rows_that_belong_together_are_split_by_their_key(
    tmp_path, first, options, key, split, excluded
):
    rows = [[first(n), n % 17, n * 31 % 7 % 2] for n in range(400)]
    data = write(tmp_path / "rows.csv", ["first", "x", "y"], rows)
    _, config = adopted(tmp_path, data, "y", **options)
    assert (config.features.key, config.data.split.key) == (key, split)
    assert config.features.exclude == excluded


def test_numbers_that_sum_to_the_label_are_left_out(tmp_path):
    chance = random.Random(1)
    rows = [[chance.randrange(90), chance.randrange(400), chance.random()] for _ in range(400)]
    rows = [[casual, registered, wind, casual + registered] for casual, registered, wind in rows]
    data = write(tmp_path / "rows.csv", ["casual", "registered", "wind", "count"], rows)
    printed, config = adopted(tmp_path, data, "count")
    assert config.features.exclude == {"casual": "leakage", "registered": "leakage"}
    assert "casual: sums to the label with registered" in printed


def test_other_formats(tmp_path):
    rows = [{k: None if v == "" else v for k, v in row.items()} for row in small.rows(300)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small.write_csv(tmp_path / "rows.csv", small.rows(300))
    text = (tmp_path / "rows.csv").read_text().replace(",", ";").replace("card", "Käse")
    (tmp_path / "latin.csv").write_text(text, encoding="latin-1")
    _, comma = adopted(tmp_path, tmp_path / "rows.csv", "bought", "comma")
    _, parquet = adopted(tmp_path, tmp_path / "rows.parquet", "bought", "parquet")
    _, lines = adopted(tmp_path, tmp_path / "rows.jsonl", "bought", "lines")
    options = {"separator": ";", "encoding": "latin-1"}
    _, latin = adopted(tmp_path, tmp_path / "latin.csv", "bought", "latin", **options)
    assert parquet.features == lines.features == comma.features
    assert latin.features.columns == comma.features.columns
    assert (latin.data.csv.separator, latin.data.csv.encoding) == (";", "latin-1")


def test_how_numbers_and_missing_ones_are_written_is_seen_and_set(tmp_path):
    rows = [[f"{n % 97},{n % 10}", "?" if n % 9 == 0 else n % 13, n % 2] for n in range(300)]
    data = write(tmp_path / "rows.csv", ["a", "b", "y"], rows)
    printed, _ = adopted(tmp_path, data, "y", "one")
    assert "a: numbers such as 0,0 are text here; read them with --decimal ," in printed
    assert "b: '?' (34 rows) taken for missing" in printed
    assert f"data.path is {tmp_path}" in printed
    _, config = adopted(tmp_path, data, "y", "two", decimal=",", nulls=("?", "-"))
    assert config.features.columns["a"].kind == "numeric"
    assert (config.data.csv.decimal, config.data.csv.nulls) == (",", ["?", "-"])


def test_the_named_options_mend_what_is_odd(tmp_path):
    answers = ("yes", "Yes ", "no")
    rows = [[f"${n},{n % 9:03}.50", f"{n % 29}%", answers[n % 3], n % 2] for n in range(1, 300)]
    data = write(tmp_path / "rows.csv", ["a", "b", "c", "y"], rows)
    printed, _ = adopted(tmp_path, data, "y", "one")
    assert "read them with --units '$' --thousands ," in printed
    assert "'Yes ' beside 'yes' are different values; --tidy c" in printed
    options = {"units": ("$", "%"), "thousands": ",", "tidy": ("c",)}
    printed, config = adopted(tmp_path, data, "y", "two", **options)
    columns = config.features.columns
    assert [columns[name].kind for name in "abc"] == ["numeric", "numeric", "vocabulary"]
    assert columns["c"].tidy
    assert config.data.csv.units == ["$", "%"]
    assert "text here" not in printed
    assert "different values" not in printed


def test_a_date_and_a_number_are_enough(tmp_path):
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=n) for n in range(300)]
    data = write(tmp_path / "rows.csv", ["day", "sold"], [[d, d.weekday() * 9] for d in days])
    _, config = adopted(tmp_path, data, "sold", problem="regression")
    assert list(config.features.columns) == ["day_month", "day_weekday"]
    _, config = adopted(tmp_path, data, "sold", "later", problem="regression", time="day")
    assert list(config.features.columns) == ["day_weekday"]
    assert config.data.split.time == "day"


def test_a_folder_and_a_pattern_are_read_whole(tmp_path):
    for day in ("1", "2"):
        small.write_csv(tmp_path / "in" / day / "rows.csv", small.rows(200))
    printed, config = adopted(tmp_path, f"{tmp_path}/in/*/*.csv", "bought", "pattern")
    _, folder = adopted(tmp_path, f"{tmp_path}/in/1", "bought", "folder")
    assert (config.data.path, config.data.pattern) == (f"{tmp_path}/in", "*/*.csv")
    assert (folder.data.path, folder.data.pattern) == (f"{tmp_path}/in/1", "*.csv")
    assert "400 rows, 8 columns" in printed
    inside = loading.PROJECT / "tests" / "pipeline" / "adopt" / "test_adopt.py"
    assert table.find(str(inside))[0] == "tests/pipeline/adopt"


def test_rows_without_a_label(tmp_path):
    rows = [[n % 17, n % 2 if n % 20 else ""] for n in range(400)]
    data = write(tmp_path / "rows.csv", ["x", "y"], rows)
    assert "empty in 20 of 400 rows (5.0%)" in refusal(tmp_path, data, "y")
    _, config = adopted(tmp_path, data, "y", quarantine=True)
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
        ("x;y", "{n};{bit}", "y", {}, "--separator to ';'"),
        ("y", "{bit}", "y", {}, "one column only"),
        ("x,y", "7,{bit}", "y", {}, "No column is left"),
        ("x,y", "{n},{bit}", "y", {"name": "Mein Name"}, "lower-case"),
        ("x,y", "{n},{bit}", "y", {"name": "n" * 300}, "--name has 300 characters"),
        ("x,y", "{n},{bit}", "y", {"encoding": "hex"}, "--encoding 'hex' is no encoding"),
        ("x,y", "{n},{bit}", "y", {"decimal": ";"}, "--decimal ';'"),
        ("x,y", "{n},{bit}", "y", {"key": "y"}, "that is the label"),
        ("x,y", "{n},text {n}", "y", {}, "more than 100"),
        ("x,y", "{n},${n}", "y", {}, "--units '$'"),
        ("x,t,y", "{n},{n}.12.2024,{bit}", "y", {"time": "t"}, "do not sort by time"),
        ("x,t,y", "{n},,{bit}", "y", {"time": "t"}, "is empty in 300 rows"),
        ('{{"x": 1', '"y": {bit}}}', "y", {}, "JSON lines"),
    ],
)
def test_what_cannot_be_adopted_is_refused(tmp_path, header, row, label, options, words):
    lines = [header.replace("{{", "{"), *(row.format(n=n * 7 % 101, bit=n % 2) for n in range(300))]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    message = refusal(tmp_path, tmp_path / "rows.csv", label, **options)
    assert words in message
    assert "did you mean 'hex'" not in message


def test_dates_with_slashes_sort_by_time(tmp_path):
    rows = [[n % 17, f"2012/{n // 28 % 12 + 1:02}/{n % 28 + 1:02}", n % 2] for n in range(300)]
    data = write(tmp_path / "rows.csv", ["x", "t", "y"], rows)
    assert adopted(tmp_path, data, "y", time="t")[1].data.split.time == "t"


def test_files_that_are_not_there_or_not_readable(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.csv").write_bytes("x,Käse\n1,1\n".encode("latin-1") * 50)
    for name in ("a.csv", "b.csv.gz"):
        small.write_csv(tmp_path / "both" / name, small.rows(9))
    assert "There is no file" in refusal(tmp_path, tmp_path / "no.csv", "y")
    assert "not on this machine" in refusal(tmp_path, "s3://bucket/a.csv", "y")
    assert "no package 'nobody' is installed" in refusal(tmp_path, "package:nobody/x.csv", "y")
    assert "2 things are wrong" in refusal(tmp_path, "", "")
    assert "no data files" in refusal(tmp_path, tmp_path / "empty", "y")
    assert ".csv and in .csv.gz" in refusal(tmp_path, tmp_path / "both", "y")
    assert "--encoding" in refusal(tmp_path, tmp_path / "latin.csv", "y")


def test_too_few_rows_are_refused_with_the_number_that_is_needed(tmp_path):
    few = write(tmp_path / "few.csv", ["x", "y"], [[n, n % 2] for n in range(30)])
    rare = write(tmp_path / "rare.csv", ["x", "y"], [[n * 7 % 99, n == 5] for n in range(200)])
    assert "At least 40" in refusal(tmp_path, few, "y")
    assert "none of the 1 rows with the label" in refusal(tmp_path, rare, "y")


REFUSED = """
import io, sys
from rich.console import Console
from components.errors import PipelineStop
from pipeline.adopt import writing
from pipeline.adopt.part import Request
try:
    writing.adopt(Request(sys.argv[1], "c0"), Console(file=io.StringIO()))
except PipelineStop as stop:
    print(stop)
print(sorted({"pandas", "sklearn", "tensorflow"} & {*sys.modules}))
"""


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_far_too_many_columns_are_refused_before_anything_slow_is_imported(tmp_path, ending):
    table, path = pa.table({f"c{n}": [n] * 60 for n in range(20_000)}), tmp_path / f"wide.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    elif ending == "jsonl":
        path.write_text((json.dumps(table.to_pylist()[0]) + "\n") * 60)
    else:
        write(path, table.column_names, [range(20_000)] * 60)
    arguments = [sys.executable, "-c", REFUSED, str(path)]
    refused = subprocess.run(arguments, cwd=loading.PROJECT, capture_output=True, text=True)
    assert "has 20,000 columns; 5,000 can be adopted" in refused.stdout
    assert refused.stdout.endswith("[]\n")


def test_nothing_is_overwritten(tmp_path):
    small.write_csv(tmp_path / "rows.csv", small.rows(300))
    adopted(tmp_path, tmp_path / "rows.csv", "bought")
    before = {path: path.read_bytes() for path in (tmp_path / "configs").iterdir()}
    with pytest.raises(PipelineStop, match="choose another --name"):
        adopted(tmp_path, tmp_path / "rows.csv", "bought")
    assert {path: path.read_bytes() for path in (tmp_path / "configs").iterdir()} == before
    schema = tmp_path / "other.schema.pbtxt"
    schema.write_text("# mine\n")
    assert [*writing.taken(tmp_path / "other.yaml", schema)]


def test_a_dry_run_writes_nothing(tmp_path):
    printed = io.StringIO()
    small.write_csv(tmp_path / "rows.csv", small.rows(300))
    request = Request(str(tmp_path / "rows.csv"), "bought", dry_run=True)
    writing.adopt(request, Console(file=printed, width=200), tmp_path)
    assert "nothing written" in printed.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


KILLED = r"""
import os, sys
from pathlib import Path
from pipeline.adopt import writing
rename, calls = os.rename, []
def killing(*paths):
    if len(calls) == int(sys.argv[2]):
        os._exit(9)
    calls.append(rename(*paths))
os.rename = killing
folder = Path(sys.argv[1])
writing.write({folder / "a.schema.pbtxt": writing.MADE_BY, folder / "a.yaml": "name: a\n"})
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_while_writing_leaves_no_configuration_and_the_same_command_goes_on(
    tmp_path, renames
):
    arguments = [sys.executable, "-c", KILLED, str(tmp_path)]
    killed = subprocess.run([*arguments, str(renames)], cwd=loading.PROJECT)
    files = tmp_path / "a.yaml", tmp_path / "a.schema.pbtxt"
    left, taken = loading.names(tmp_path), [*writing.taken(*files)]
    again = subprocess.run([*arguments, "2"], cwd=loading.PROJECT)
    assert (killed.returncode, left, taken, again.returncode) == (9, [], [], 0)
    assert [*writing.taken(*files)]


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
