"""From a run to predictions, by the command line: promote, predict, serve, roll back, in bulk."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.inference.columns import from_rows
from components.inference.model import LoadedVersion, choose
from tests import small
from tests.end_to_end.project import Project

ROW = {"amount": 12.5, "weight": 0.3, "hour": 14, "shop": "shop 3", "method": "card"}
LOGGED = ("--set", "prediction_log.enabled=true", "--set", "prediction_log.seconds_per_file=0.5")

SERVING = (
    *("--set", "serving.http_port=0"),
    *("--set", "serving.grpc_port=0"),
    *("--set", "serving.follow_seconds=0.1"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with two versions, promoted one after the other."""
    settings = {**small.SETTINGS, "registry": {"model": "small", "promote": "manual"}}
    project = Project(tmp_path_factory.mktemp("project"), settings)
    for seed in (1, 2):
        result = project.run("--set", f"training.seed={seed}")
        assert result.code == 0, result.output
        assert "now candidate" in result.output
        assert f"make promote CONFIG=small VERSION={seed}" in result.output
        assert project.call("versions", "promote", "candidate").code == 0
    return project


def expected(project: Project, version: str, rows: list[dict[str, Any]]) -> np.ndarray:
    loaded = LoadedVersion(choose(str(project.registry), version))
    return loaded.predict(from_rows(loaded.signature, rows))


def test_predict_prints_what_the_model_says(project: Project) -> None:
    champion, first = (
        project.call("predict", json.dumps(ROW), *more).output for more in ((), ("--version", "1"))
    )
    for text, version in ((champion, 2), (first, 1)):
        answer = json.loads(text)
        assert (answer["model"], answer["version"]) == ("small", version)
        assert answer["predictions"] == pytest.approx(
            expected(project, str(version), [ROW]), abs=1e-6
        )
    assert champion != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{amount: 1}", "That is not JSON"),
        ('{"amount": "much", "hour": 1}', "row 0: 'amount' must be a number, got 'much'"),
        ('{"amount": 1}', "row 0: 'hour' is required (an integer)"),
    ],
)
def test_a_row_that_cannot_be_predicted(project: Project, text: str, message: str) -> None:
    result = project.call("predict", text)
    assert result.code == 2
    assert message in result.output
    assert "Traceback" not in result.output


class Server:
    """`python -m pipeline serve`, and what it printed when it was ready."""

    def __init__(self, project: Project):
        """Starts it on free ports and waits until it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "serve", "--config", "small", *LOGGED, *SERVING],
            cwd=project.folder,
            env=small.environment_of_a_copy(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout
        self.printed = ""
        while "curl" not in self.printed:
            line = self.process.stdout.readline()
            assert line, f"it ended: {self.printed}"
            self.printed += line
        (self.url,) = re.findall(r"REST +(http://\S+)", self.printed)

    def predict(self, rows: list[dict[str, Any]]) -> tuple[str, list[Any]]:
        """The version that answered, and its predictions."""
        request = urllib.request.Request(
            f"{self.url}/v1/models/small:predict", json.dumps({"instances": rows}).encode()
        )
        with urllib.request.urlopen(request) as reply:
            return reply.headers["x-model-version"], json.load(reply)["predictions"]


@pytest.fixture
def server(project: Project) -> Iterator[Server]:
    server = Server(project)
    yield server
    server.process.kill()
    server.process.communicate()


def test_the_server_follows_a_rollback_and_ends_in_order(project: Project, server: Server) -> None:
    answered, predictions = server.predict([ROW])
    assert answered == "2"
    assert predictions == pytest.approx(expected(project, "2", [ROW]), abs=1e-6)
    assert project.call("versions", "rollback").code == 0
    deadline = time.monotonic() + 30
    while server.predict([ROW])[0] != "1":
        assert time.monotonic() < deadline
    assert server.predict([ROW])[1] == pytest.approx(expected(project, "1", [ROW]), abs=1e-6)
    assert project.call("versions", "promote", "2").code == 0
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0


def test_the_line_that_it_prints_works_as_typed(server: Server) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    (line,) = [line for line in server.printed.splitlines() if line.strip().startswith("curl")]
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert 0 < json.loads(done.stdout)["predictions"][0][0] < 1


def test_bulk_and_online_predictions_are_the_same(project: Project, server: Server) -> None:
    rows = [
        {name: value for name, value in row.items() if value != ""} for row in small.rows(40, 7)
    ]
    small.write_csv(project.folder / "fresh" / "rows.csv", small.rows(40, 7))
    result = project.call(
        "batch-predict",
        "--input",
        "fresh/*.csv",
        "--output",
        "out",
        "--key",
        "when",
        *LOGGED,
    )
    assert result.code == 0, result.output
    bulk = {
        row["key"]: (row["prediction"], row["version"])
        for path in sorted(Path(project.folder, "out", "predictions").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }
    _, online = server.predict([{**row, "key": row["when"]} for row in reversed(rows)])
    assert len(bulk) == len(online) == 40
    for answer in online:
        prediction, version = bulk[str(answer["key"])]  # CSV has no types
        assert version == 2
        assert [prediction] == pytest.approx(answer["predictions"], abs=1e-6)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    check_log(project, [row["when"] for row in rows])


def check_log(project: Project, keys: list[int]) -> None:
    """Both ways of predicting have logged every key, with the same features and predictions."""
    logged: dict[str, list[Any]] = {}
    for path in (project.folder / "workspace" / "predictions" / "small").glob("*/*.parquet"):
        for row in pq.read_table(path).to_pylist():
            if row["key"]:
                logged.setdefault(row["key"], []).append(row)
    assert sorted(logged) == sorted(map(str, keys))
    for online, bulk in logged.values():
        assert online["features"] == bulk["features"]
        assert online["version"] == bulk["version"] == 2
        assert online["prediction"] == pytest.approx(bulk["prediction"], abs=1e-6)
