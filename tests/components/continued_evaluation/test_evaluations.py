"""`evaluations` and its page, by the real command line, on a history that was filed for real."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.continued_evaluation import history
from components.registry import labels, store
from components.registry.labels import Mover
from pipeline.cli import app
from tests.components.continued_evaluation import histories

MODEL = "taxi-development"
PAGE = f"{MODEL}-evaluations.html"


class Workspace:
    """A workspace, and the command on it."""

    def __init__(self, root: Path):
        self.root = root
        self.model = root / "registry" / MODEL

    def call(self, *arguments: str, code: int = 0) -> Result:
        """Runs the command, which must end with the code."""
        place = ["evaluations", "-c", "development", f"--set=workspace={self.root}"]
        result = CliRunner().invoke(app, [*place, *arguments], env={"COLUMNS": "200"})
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result

    def next(self) -> str:
        """What the command says is to be typed next."""
        return self.call().stdout.partition("Next:")[2]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("story") / "workspace")
    histories.file_story(made.model)
    return made


@pytest.fixture
def workspace(story: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the story, to be changed."""
    return Workspace(shutil.copytree(story.root, tmp_path / "workspace"))


def test_without_an_evaluation_one_sentence_says_so(tmp_path: Path) -> None:
    empty = Workspace(tmp_path)
    told = empty.call().stdout
    assert told.count("\n") == 1
    assert "No version in" in told and "has been evaluated on fresh data yet." in told
    assert json.loads(empty.call("--json").stdout) == []


def test_json_is_all_that_was_recorded_and_nothing_else(story: Workspace) -> None:
    found = json.loads(story.call("--json").stdout)
    recorded = history.read_all(str(story.model))
    assert [history.Record.model_validate(one) for one in found] == recorded
    assert [one["followed"] and one["followed"]["what"] for one in found] == [
        histories.FOLLOWED[n][0] if n in histories.FOLLOWED else None for n in range(12)
    ]
    assert not (story.root / "reports").exists()


def test_a_row_says_what_was_found_decided_and_done(story: Workspace) -> None:
    lines = story.call().stdout.partition("decision")[2].splitlines()[1:]
    starts = [number for number, line in enumerate(lines) if line[:1].isdigit()]
    ends = [*starts[1:], lines.index("")]
    rows = [" ".join(" ".join(lines[a:b]).split()) for a, b in zip(starts, ends, strict=True)]
    assert [row.split()[0] for row in rows] == [str(event["span"]) for event in histories.STORY]
    assert rows[0].startswith("3 3,010 1 0.9510 (0.9401 to 0.9619) payment_type 0.085")
    assert rows[0].endswith("/ 0.2 keep")
    assert rows[3] == (
        "8 3,010 1 0.9360 (0.9251 to 0.9469) fare 0.410 / 0.3 retrain: fare has moved away from "
        "the champion's training: jensen shannon divergence … -> version 2 was filed"
    )
    assert "roll back: auc of all rows is 0.8420 (0.8311 to 0.8529)" in rows[5]
    assert "(+3) -> rolled back to 1" in rows[5]
    assert 'company does not fit the schema: <script>alert("x")</script>' in rows[7]
    assert f"{histories.ODD_COLUMN} 0.620 / 0.2" in rows[7]
    assert rows[10].startswith("14 3,010 3 - ")
    assert rows[10].endswith("labels of the span are the same -> nothing yet")


class _Page(HTMLParser):
    """Tags with their attributes, and the rows that have an id, without scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, str] = {}
        self._row: str | None = None
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "tr":
            self._row = dict(attrs).get("id")
            self.rows |= {self._row: ""} if self._row else {}

    def handle_data(self, data: str) -> None:
        if self._row and self._inside not in ("script", "style"):
            self.rows[self._row] += data


def test_the_page_has_every_evaluation_and_loads_and_runs_nothing_else(
    workspace: Workspace,
) -> None:
    told = workspace.call().stdout
    path = workspace.root / "reports" / PAGE
    assert str(path) in told
    text = path.read_text("utf-8")
    page = _Page(text)
    records = history.read_all(str(workspace.model))
    assert [*page.rows] == [record.id for record in reversed(records)]
    for record in records:
        assert all(reason.text in page.rows[record.id] for reason in record.decision.reasons)
    for number, (what, _) in histories.FOLLOWED.items():
        assert what in page.rows[records[number].id]
    assert "unlabelled (late labels): 412" in page.rows[records[1].id]
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"img", "b", "i", "iframe", "object", "embed", "link", "form"}
    loading = {"src", "srcset", "href", "action", "onerror", "onload"}
    loaded = {name: attrs[name] for _, attrs in page.tags for name in loading & attrs.keys()}
    assert loaded == {"href": "index.html"}
    assert f'href="{PAGE}"' in (path.parent / "index.html").read_text()
    [policy] = [attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs]
    assert policy is not None and policy.startswith("default-src 'none'; ")
    assert "<script>alert" not in text
    for metric in ("auc", "log_loss", "accuracy"):
        assert f"<h3>{metric}</h3>" in text


def test_the_next_command_does_what_a_decision_left_to_do(workspace: Workspace) -> None:
    told = workspace.next()
    assert "make run-local " in told  # a retraining that nobody started
    assert "make rollback" not in told
    model, newest = str(workspace.model), history.read_all(str(workspace.model))[-1]
    saved = workspace.root / "model"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"model")
    made = store.add_version(model, str(saved), {"fingerprint": "a"})
    labels.assign(model, store.CANDIDATE, made, Mover("run 7", "blessed"))
    history.note(model, newest, f"version {made} was filed", version=made)
    told = workspace.next()
    assert f"make promote VERSION={made} " in told
    assert "make run-local" not in told
    for one in history.read_all(model)[6:]:
        shutil.rmtree(history.path_of(model, one.id))
    history.path_of(model, history.read_all(model)[-1].id, history.FOLLOWED_FILE).unlink()
    assert "make rollback " in workspace.next()
    history.note(model, history.read_all(model)[-1], "rolled back to 1", version=1)
    assert "make rollback " not in workspace.next()


def test_a_damaged_evaluation_is_told_with_what_to_do(workspace: Workspace) -> None:
    (damaged,) = (workspace.model / history.FOLDER).glob("span-9-*")
    (damaged / history.EVALUATION_FILE).write_text('{"id": ')
    for arguments in ([], ["--json"]):
        result = workspace.call(*arguments, code=2)
        assert f"{damaged / history.EVALUATION_FILE} cannot be read" in result.stderr
        assert f"remove {damaged}" in result.stderr
        assert result.stdout == ""
