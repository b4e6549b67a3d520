"""The page of the story, made once."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.continued_evaluation import history
from pipeline.continued_evaluation.page import write_page
from tests.pipeline.continued_evaluation import histories
from tests.pipeline.continued_evaluation.pages import Page


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry") / "taxi"
    histories.file_story(folder)
    return folder


@pytest.fixture(scope="module")
def path(model: Path) -> Path:
    records = history.read_all(str(model))
    found = {record.id: history.followed(str(model), record.id) for record in records}
    followed = {id_: what for id_, what in found.items() if what}
    return write_page(records, followed, "taxi & <b>more</b>", model.parent / "pages" / "page.html")


@pytest.fixture(scope="module")
def records(model: Path) -> list[history.Record]:
    return history.read_all(str(model))


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def charts(page: Page) -> dict[str, Any]:
    return json.loads(page.scripts[0])
