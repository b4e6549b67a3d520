import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.batch_prediction import inputs
from components.batch_prediction.inputs import Item, Wanted
from components.errors import PipelineStop

_SIGNATURE = {
    "inputs": {
        "fare": {"type": "FLOAT", "required": True},
        "hour": {"type": "INT", "required": False},
        "company": {"type": "BYTES", "required": False},
    },
    "ignored": ["tips"],
}


def plan(pattern: Path, key: str | None = None, columns: tuple[str, ...] = ()) -> list[Item]:
    return inputs.plan(inputs.find(str(pattern), "elsewhere"), Wanted(_SIGNATURE, key, columns))[0]


def test_a_pattern_that_matches_nothing(tmp_path):
    with pytest.raises(PipelineStop, match="No file matches --input"):
        inputs.find(f"{tmp_path}/*.csv", "out")


def test_a_folder_stands_for_the_files_in_it_that_can_be_inputs(tmp_path):
    folder = tmp_path / "rows [of May]*"
    (folder / "older.csv").mkdir(parents=True)
    for name in ("b.csv", "a.parquet", "README", "older.csv/c.csv"):
        (folder / name).write_text("fare\n1\n")
    found = [file.path for file in inputs.find(str(folder), "out")]
    assert found == [f"{folder}/a.parquet", f"{folder}/b.csv"]


def test_a_folder_without_inputs(tmp_path):
    (tmp_path / "README").write_text("words")
    with pytest.raises(PipelineStop, match=r"No file matches --input .* a folder of \.csv, "):
        inputs.find(str(tmp_path), "out")


def test_files_of_another_kind(tmp_path):
    for name in ("a.csv", "b.json"):
        (tmp_path / name).write_text("fare\n1\n")
    with pytest.raises(PipelineStop, match=r"matches .*b\.json\. Files must end in \.csv"):
        inputs.find(f"{tmp_path}/*", "out")


def test_the_output_is_not_its_own_input(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part.csv").write_text("fare\n1\n")
    with pytest.raises(PipelineStop, match=r"below --output .*/out\. Write the predictions else"):
        inputs.find(f"{tmp_path}/**.csv", f"{tmp_path}/out")


@pytest.mark.parametrize("pattern", ["data/*.csv", "./d*/a.csv", "*/a.csv", "**.csv", "data/a.csv"])
def test_patterns_below_the_working_folder(tmp_path, monkeypatch, pattern):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("fare\n1\n")
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in inputs.find(pattern, "out")] == [f"{tmp_path}/data/a.csv"]


def test_an_unknown_file_system():
    with pytest.raises(PipelineStop, match=r"--input nowhere://a/\*\.csv can't be listed"):
        inputs.find("nowhere://a/*.csv", "out")


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path):
    (tmp_path / "a.csv").write_text("hour,company\n1,x\n")
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "c.csv").write_text("fare,fare\n1,2\n")
    (tmp_path / "d.csv").write_text("fare,id,houre\n1,2,3\n")
    (tmp_path / "e.csv").write_text("color\nred\n")
    table = pa.table({"fare": ["1"], "hour": [True], "id": [1.5], "tips": [1]})
    pq.write_table(table, tmp_path / "f.parquet")
    (tmp_path / "g.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(PipelineStop) as stop:
        plan(tmp_path / "*", key="id", columns=("tips",))
    text = str(stop.value).replace(f"{tmp_path}/", "")
    assert text.splitlines()[:10] == [
        "a.csv: there is no column 'fare', and the model requires it",
        "a.csv: there is no column 'id', and it is the key; name another column with --key",
        "a.csv: there is no column 'tips', and --columns asks for it",
        "b.csv is empty. A header with the column names is expected.",
        "c.csv can't be read: its header has these columns twice: fare. Check that it is whole and "
        "may be read.",
        "d.csv: it has no column 'houre'; did you mean 'hour'?",
        "d.csv: there is no column 'tips', and --columns asks for it",
        "e.csv: it has no column that the model reads (fare, hour, company)",
        "e.csv: there is no column 'fare', and the model requires it",
        "e.csv: there is no column 'id', and it is the key; name another column with --key",
    ]
    assert text.splitlines()[10:] == ["and 4 more"]


def test_parquet_types_that_cannot_fit(tmp_path):
    table = pa.table({"fare": ["1"], "hour": [dt.date(2020, 1, 1)], "id": [1.5], "tips": [[1]]})
    pq.write_table(table, tmp_path / "f.parquet")
    with pytest.raises(PipelineStop) as stop:
        plan(tmp_path / "*", key="id", columns=("tips",))
    assert [line.partition(": ")[2] for line in str(stop.value).splitlines()] == [
        "column 'fare' is string, and must be a number; cast it in the file",
        "column 'hour' is date32[day], and must be an integer; cast it in the file",
        "the key 'id' is double, and must be a text or an integer",
    ]


def test_an_optional_column_that_is_missing_is_a_warning_told_once(tmp_path):
    for name in "abcde":
        (tmp_path / f"{name}.csv").write_text("fare,company\n1,x\n")
    files = inputs.find(f"{tmp_path}/*.csv", "out")
    items, warnings = inputs.plan(files, Wanted(_SIGNATURE, None, ()))
    assert [item.names for item in items] == [["fare", "company"]] * 5
    listed = ", ".join(f"{tmp_path}/{name}.csv" for name in "abc")
    assert warnings == [f"column 'hour' is not in {listed} and 2 more; it counts as missing"]


def test_files_in_several_folders_have_names_of_their_own(tmp_path):
    for folder in ("2024/01", "2024/02"):
        path = tmp_path / folder / "rows.csv"
        path.parent.mkdir(parents=True)
        path.write_text("fare\n1\n")
    items = plan(tmp_path / "2024" / "**.csv")
    assert [item.name for item in items] == ["01/rows.csv", "02/rows.csv"]
    assert [item.name for item in plan(tmp_path / "2024/01/*.csv")] == ["rows.csv"]


@pytest.mark.parametrize("length", [20_000, 200_000])
def test_a_file_whose_first_line_is_no_header(tmp_path, length):
    (tmp_path / "a.csv").write_text("x" * length)
    with pytest.raises(PipelineStop, match=r"a\.csv can't be read: its first line is no header"):
        plan(tmp_path / "*.csv")
