"""The figures of the page: what is drawn, where, and what it says when pointed at."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.continued_evaluation import history
from components.continued_evaluation.evidence import Moved
from pipeline.continued_evaluation.page import write_page
from tests.pipeline.continued_evaluation import histories
from tests.pipeline.continued_evaluation.pages import Page


def named(figure: dict[str, Any], name: str) -> dict[str, Any]:
    return next(trace for trace in figure["data"] if trace.get("name") == name)


def test_a_chart_for_each_metric_that_has_a_limit_and_a_figure_for_each_slice(
    page: Page, charts: dict[str, Any]
) -> None:
    assert {"metric-0", "metric-1", "metric-2", "metric-3"} & charts.keys() == {
        "metric-0",
        "metric-1",
        "metric-2",
    }
    assert "auc all rows: at least 0.88, at most 0.03 worse than at promotion" in page.text
    assert "accuracy slices of payment_type: at least 0.6" in page.text
    options = [attrs["value"] for tag, attrs in page.tags if tag == "option"]
    assert options == ["0", "1", "2", "3"]
    assert all(len(charts[f"metric-{number}"]) == len(options) for number in range(3))


def test_the_champion_s_line_breaks_where_the_version_changes_or_nothing_is_known(
    charts: dict[str, Any],
) -> None:
    line = named(charts["metric-0"][0], "champion")
    assert line["x"] == [0, 1, 2, 3, None, 4, 5, None, 6, 7, 8, 9, None, 11, None]
    assert line["y"][:4] == [0.951, 0.947, 0.930, 0.936]
    before = named(charts["metric-0"][0], "version before")
    assert before["x"] == [4, 5, None, 10, 11, None]
    assert named(charts["metric-0"][0], "heuristic")["x"] == [*range(12), None]
    served = named(charts["metric-0"][0], "champion, as it was served")
    assert (served["x"], served["y"]) == ([1, None], [0.946, None])


def test_the_interval_is_a_closed_band_and_has_width_for_a_single_evaluation(
    charts: dict[str, Any], records: list[history.Record]
) -> None:
    traces = charts["metric-0"][0]["data"]
    band = traces[traces.index(named(charts["metric-0"][0], "champion")) - 1]
    assert band["fill"] == "toself"
    first = records[0].evidence.metrics["champion"]["overall"]["auc"]
    assert (band["y"][0], band["y"][7]) == (first.low, first.high)
    assert band["x"][-5:] == [10.8, 11.2, 11.2, 10.8, None]


def test_limits_are_lines_also_those_from_promotion(charts: dict[str, Any]) -> None:
    dashed = [t for t in charts["metric-0"][0]["data"] if t.get("line", {}).get("dash") == "dash"]
    limits = [trace for trace in dashed if "name" not in trace]
    assert [set(trace["y"]) for trace in limits] == [{0.88}, {0.955 - 0.03}]
    assert limits[0]["x"][:2] == [-0.5, 0.5]
    sliced = charts["metric-2"]
    assert not [t for t in sliced[0]["data"] if t.get("y", [None])[0] == 0.6]
    assert [t for t in sliced[1]["data"] if t.get("y", [None])[0] == 0.6]


def test_decisions_are_marks_and_new_champions_vertical_lines(
    charts: dict[str, Any], records: list[history.Record]
) -> None:
    figure = charts["decisions"][0]
    lanes = figure["layout"]["yaxis"]["ticktext"]
    marks = {place: lanes[trace["y"][0]] for trace in figure["data"] for place in trace["x"]}
    assert [marks[number].lower().replace(" ", "_") for number in range(12)] == [
        record.decision.action for record in records
    ]
    for name in ("decisions", "metric-0", "drift-training"):
        shapes = charts[name][0]["layout"]["shapes"]
        assert [shape["x0"] for shape in shapes] == [3.5, 5.5, 9.5]
    versions = [note["text"] for note in figure["layout"]["annotations"]]
    assert versions == ["v1", "v2", "v1", "v3"]


def test_a_slice_that_has_the_metric_in_no_span_says_so(charts: dict[str, Any]) -> None:
    figure = charts["metric-0"][sorted(histories.SLICES).index("payment_type=Credit Card")]
    assert [note["text"] for note in figure["layout"]["annotations"]] == ["not known of any span"]
    assert not figure["data"]


def test_drift_is_a_multiple_of_its_limit_farthest_first_with_the_measure(
    charts: dict[str, Any], records: list[history.Record]
) -> None:
    for against, rows in (("training", 6), ("before", 6), ("served", 4)):
        assert len(charts[f"drift-{against}"][0]["data"][0]["z"]) == rows
    figure = charts["drift-training"][0]
    assert figure["layout"]["yaxis"]["ticktext"][:2] == ["fare", "trip_miles"]
    fare = figure["data"][0]["z"][0]
    assert fare[3] == pytest.approx(0.41 / 0.3)
    assert figure["data"][0]["text"][0][3] == "1.4"
    assert figure["data"][0]["text"][0][0] == ""
    assert "jensen shannon divergence<br>0.410, limit 0.3" in figure["data"][0]["hovertext"][0][3]


def test_of_many_columns_those_that_moved_farthest_are_drawn(
    tmp_path: Path, records: list[history.Record]
) -> None:
    moved = [
        Moved(column=f"c{n}", measure="infinity_norm", against="before", value=n / 100, limit=0.3)
        for n in range(40)
    ]
    evidence = records[0].evidence.model_copy(update={"moved": moved})
    record = records[0].model_copy(update={"evidence": evidence})
    page = Page(write_page([record], {}, "taxi", tmp_path / "page.html").read_text("utf-8"))
    figure = json.loads(page.scripts[0])["drift-before"][0]
    assert figure["layout"]["yaxis"]["ticktext"] == [f"c{n}" for n in range(39, 9, -1)]
    assert "1 evaluation of span 3." in page.text
    assert "No limit is broken" in page.text


def test_spans_are_called_as_in_the_data_s_pattern(tmp_path: Path) -> None:
    dated = histories.file_story(tmp_path / "dated", "data/{YYYY}-{MM}-{DD}/*.csv")
    page = Page(write_page(dated, {}, "taxi", tmp_path / "page.html").read_text("utf-8"))
    assert "spans 1970-01-04 to 1970-01-16" in page.text
    ticks = json.loads(page.scripts[0])["decisions"][0]["layout"]["xaxis"]["labelalias"]
    assert ticks["11"] == "1970-01-16"
