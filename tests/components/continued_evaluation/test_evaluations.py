"""`evaluations` and its page, by the real command line, on a history that was filed for real."""

import json
import re
import shutil
from pathlib import Path

import pytest
from markupsafe import escape
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
    assert rows[0] == "3 1,000 1 0.9000 (0.8900 to 0.9100) shop 0.085 / 0.3 keep"
    assert rows[3].startswith("8 1,000 3 0.9000 (0.8900 to 0.9100) fare 0.410 / 0.3 retrain: fare")
    assert rows[3].endswith("infinity norm 0.410, limit 0.3 -> version 2 was filed")
    assert "roll back: auc of all rows is 0.7000 (0.6900 to 0.7100)" in rows[5]
    assert "(+2) -> rolled back to 1" in rows[5]
    assert 'company does not fit the schema: <script>alert("x")</script>' in rows[7]
    assert f"{histories.ODD_COLUMN} 0.620 / 0.3" in rows[7]
    assert rows[10].startswith("14 1,000 3 - ")
    assert rows[10].endswith("labels of the span are the same -> nothing yet")


def test_the_page_has_every_evaluation_and_loads_and_runs_nothing_else(
    workspace: Workspace,
) -> None:
    told = workspace.call().stdout
    path = workspace.root / "reports" / PAGE
    assert str(path) in told
    text = path.read_text("utf-8")
    rows = dict(re.findall(r'<tr id="([^"]+)">(.*?)</tr>', text, re.DOTALL))
    records = history.read_all(str(workspace.model))
    assert [*rows] == [record.id for record in reversed(records)]
    for record in records:
        said = [record.outcome, *(reason.text for reason in record.decision.reasons)]
        assert not [words for words in said if escape(words) not in rows[record.id]]
    assert {record.outcome for record in records} >= {
        what for what, _ in histories.FOLLOWED.values()
    }
    assert "unlabelled (late labels): 412" in rows[records[1].id]
    assert not re.findall(r"<(?:script|img|b|i|iframe|object|embed|link|form)\b", text)
    loaded = re.findall(r'\b(?:src|srcset|href|action|on\w+)="([^"]*)"', text)
    assert loaded == ["#content", "index.html"]
    assert f'href="{PAGE}"' in (path.parent / "index.html").read_text()
    assert not [name for name in ("auc", "log_loss", "accuracy") if f"<h3>{name}</h3>" not in text]


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
