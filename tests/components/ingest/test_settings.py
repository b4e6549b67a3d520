import pytest

from components.errors import PipelineStop
from components.ingest.component import ArrowExampleGen
from components.ingest.settings import CsvFormat, IngestSettings, Split

BY_ROW = {"by": "row", "train": 0.6, "eval": 0.2, "test": 0.2}


@pytest.mark.parametrize(
    ("split", "path", "message"),
    [
        (BY_ROW | {"test": 0.3}, (), "train + eval + test is 1.1; the three must add up to 1"),
        (BY_ROW | {"key": ["id"]}, ("key",), "if, and only if, 'by' is 'key'"),
        (BY_ROW | {"by": "key"}, ("key",), "if, and only if, 'by' is 'key'"),
        (BY_ROW | {"by": "time"}, ("time",), "if, and only if, 'by' is 'time'"),
        (BY_ROW | {"time": "when"}, ("time",), "if, and only if, 'by' is 'time'"),
    ],
)
def test_contradictions_are_named(split, path, message):
    ((found_path, found),) = Split(**split).problems()
    assert found_path == path
    assert message in found


def test_a_component_refuses_columns_it_does_not_know(make_settings):
    settings = make_settings(split=BY_ROW | {"by": "time", "time": "when"}, label="lable")
    with pytest.raises(PipelineStop) as stop:
        ArrowExampleGen("data", "*", settings)
    assert "no column lable, when, which" in str(stop.value)
    assert "It has: id, name, x." in str(stop.value)


def test_the_cache_key_depends_on_values_and_not_on_their_order(make_settings):
    a = make_settings(columns={"id": "INT", "x": "FLOAT"})
    b = make_settings(columns={"x": "FLOAT", "id": "INT"})
    assert a.to_json() == b.to_json()
    assert a.to_json() != make_settings(columns={"id": "INT", "x": "FLOAT"}, code="2").to_json()
    assert IngestSettings.model_validate_json(a.to_json()) == a


@pytest.mark.parametrize(
    ("form", "problems"),
    [
        ({"separator": ";;"}, ["separator"]),
        ({"separator": "é"}, ["separator"]),
        ({"separator": '"'}, ["separator"]),
        ({"quote": "''"}, ["quote"]),
        ({"decimal": ",", "thousands": ","}, ["thousands"]),
        *[({"encoding": name}, ["encoding"]) for name in ("x", "base64", "idna", "punycode")],
        *[({"encoding": name}, ["encoding"]) for name in ("undefined", "unicode_escape", "")],
    ],
)
def test_what_no_file_can_be_read_with_is_a_mistake_of_the_settings(form, problems):
    assert [path for path, _ in CsvFormat(**form).problems()] == [(name,) for name in problems]
