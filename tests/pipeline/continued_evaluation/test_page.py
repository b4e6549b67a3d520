"""The page of a model's evaluations: what it says, that it loads nothing, how it is written."""

from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from components.continued_evaluation import history
from pipeline.continued_evaluation.page import write_page
from tests.pipeline.continued_evaluation import histories
from tests.pipeline.continued_evaluation.pages import Page

LOADING = {"src", "srcset", "href", "xlink:href", "data", "action", "poster", "background"}
"""Attributes by which a browser loads something."""


def test_the_head_has_the_newest_decision_and_all_its_reasons(
    page: Page, records: list[history.Record]
) -> None:
    head = page.text.partition("All evaluations")[0]
    assert "taxi & <b>more</b>" in head
    assert "12 evaluations of spans 3 to 15. The newest judged version 3." in head
    assert "Retrain The champion needs a successor" in head
    assert len(records[-1].decision.reasons) == 5
    for reason in records[-1].decision.reasons:
        assert reason.text in head


def test_the_table_has_every_reason_in_full_and_what_followed_newest_first(
    page: Page, records: list[history.Record]
) -> None:
    rows = page.rows[1:]
    assert len(rows) == len(records) == len(histories.STORY)
    for row, record in zip(rows, reversed(records), strict=True):
        words = " ".join(row.split())
        for reason in record.decision.reasons:
            assert " ".join(reason.text.split()) in words
    newest_first = dict(enumerate(reversed(rows)))
    for number, followed in histories.FOLLOWED.items():
        assert followed.what in newest_first[number]
    assert "nothing yet" in newest_first[11]
    assert "nothing to do" in newest_first[0]
    assert "0.8610 0.8501 to 0.8719" in " ".join(newest_first[11].split())
    assert "log_loss" in newest_first[11]


def test_more_is_known_of_each_span_than_its_row_has_room_for(page: Page) -> None:
    served = " ".join(page.rows[-2].split())
    assert "0.9460" in served, "the logged predictions are what is judged"
    assert "champion's age in days 30" in served
    assert "rows of earlier spans 3.0%" in served
    assert "unlabelled (late labels) 412" in served
    assert "(late labels)" not in page.rows[-1]
    odd = " ".join(page.rows[5].split())
    assert f"moved farthest {histories.ODD_COLUMN}, against the span before: 0.620" in odd


def test_the_story_has_all_four_decisions_and_each_has_its_name(page: Page) -> None:
    for name in ("Keep", "Retrain", "Roll back", "Investigate"):
        assert any(name in row for row in page.rows)


def test_nothing_is_injected(page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"img", "b", "i", "iframe", "object", "embed", "link", "form"}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert len(page.scripts) == 3
    for odd in (histories.ODD_SLICE, histories.ODD_ANOMALY, histories.ODD_OUTCOME):
        assert odd in page.text


def test_what_plotly_shows_has_no_markup_of_the_data(charts: dict[str, Any]) -> None:
    column = "company &lt;/script&gt;&lt;i&gt;&amp;"
    drift = charts["drift-before"][0]
    assert drift["layout"]["yaxis"]["ticktext"][0] == column
    assert f"{column}: infinity norm<br>0.620, limit 0.2" in drift["data"][0]["hovertext"][0][7]
    shown = [text for trace in charts["decisions"][0]["data"] for text in trace["hovertext"]]
    assert any("&lt;script&gt;alert(" in text for text in shown)
    assert not any("<script" in text or "<b>3" in text for text in shown)


def test_a_browser_loads_nothing_else(page: Page) -> None:
    for tag, attrs in page.tags:
        assert not {name for name in attrs if name in LOADING}, (tag, attrs)
    policies = [a["content"] for _, a in page.tags if "http-equiv" in a]
    assert policies and policies[0].startswith("default-src 'none'; ")
    assert page.scripts[1] == get_plotlyjs()
    own = page.scripts[2]
    assert not [word for word in ("fetch", "XMLHttp", "import", "://", "url(") if word in own]


def test_the_style_loads_nothing(path: Path) -> None:
    style = path.read_text("utf-8").partition("<style>")[2].partition("</style>")[0]
    assert "color-scheme" in style
    assert "@import" not in style and "url(" not in style and "://" not in style


def test_it_appears_whole_or_not_at_all(tmp_path: Path, records: list[history.Record]) -> None:
    path = write_page(records, {}, "taxi", tmp_path / "reports" / "page.html")
    whole = path.read_text("utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    damaged = records[0].model_copy(update={"settings": {"limits": [{"at_least": 1}]}})
    with pytest.raises(ValueError, match="metric"):
        write_page([damaged], {}, "taxi", path)
    assert path.read_text("utf-8") == whole
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
