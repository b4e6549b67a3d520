"""The history: whole, append-only, and nothing in it twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.continued_evaluation import history
from components.continued_evaluation.decision import decide
from components.errors import PipelineStop
from components.registry import store
from pipeline.loading import PROJECT
from tests.components.continued_evaluation.evidences import SETTINGS, ordinary

HASHES = np.arange(3, dtype=np.uint64)


def record(span: int, **changes: object) -> history.Record:
    evidence = ordinary(span=span, **changes)
    return history.Record(
        id=history.make_id(span, 3, "data"),
        number=0,
        time=history.now(),
        run_id="run",
        source="data/span-{SPAN}/*.csv",
        evidence=evidence,
        decision=decide(evidence, SETTINGS),
        settings=SETTINGS.model_dump(mode="json"),
    )


def test_an_evaluation_is_filed_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    model = str(tmp_path / "small")
    first = history.add(model, record(7), b"stats", HASHES)
    assert first.number == 1
    again = history.add(model, record(7, champion=9), b"other", HASHES)
    assert again == first
    second = history.add(model, record(8), b"stats", HASHES)
    assert (second.number, second.id) == (2, history.make_id(8, 3, "data"))
    assert history.read_all(model) == [first, second]
    assert history.path_of(model, first.id, history.STATISTICS).read_bytes() == b"stats"
    assert np.load(history.path_of(model, first.id, history.HASHES)).tolist() == [0, 1, 2]
    assert store.list_versions(model) == []


def test_the_id_is_made_of_all_that_matters() -> None:
    ids = {
        history.make_id(7, 3, "data", "settings"),
        history.make_id(8, 3, "data", "settings"),
        history.make_id(7, 4, "data", "settings"),
        history.make_id(7, 3, "data2", "settings"),
        history.make_id(7, 3, "data", "settings2"),
        history.make_id(7, 3, "datasettings"),
    }
    assert len(ids) == 6
    assert all(name.startswith(("span-7-v3-", "span-8-v3-", "span-7-v4-")) for name in ids)


def test_what_followed_is_beside_it(tmp_path: Path) -> None:
    model = str(tmp_path / "small")
    made = history.add(model, record(7), b"", HASHES)
    assert history.followed(model, made.id) is None
    said = history.Followed(time=history.now(), what="retrained: version 4", version=4)
    history.follow(model, made.id, said)
    assert history.followed(model, made.id) == said
    assert history.read_all(model) == [made]


def test_a_damaged_evaluation_is_named(tmp_path: Path) -> None:
    model = str(tmp_path / "small")
    made = history.add(model, record(7), b"", HASHES)
    path = history.path_of(model, made.id, history.EVALUATION_FILE)
    path.write_text(path.read_text()[:50])
    with pytest.raises(PipelineStop, match=r"evaluation.json cannot be read .*the other evaluat"):
        history.read_all(model)


def test_what_a_killed_filing_left_is_swept(tmp_path: Path) -> None:
    """Also if the next evaluation is of other data or settings, and so has another id."""
    model = str(tmp_path / "small")
    left = Path(model, history.FOLDER, ".tmp-span-7-v3-00000000")
    left.mkdir(parents=True)
    (left / history.STATISTICS).write_bytes(b"half")
    history.add(model, record(8), b"", HASHES)
    assert not left.exists()


_FILE = """
import os, signal, sys
import numpy as np
from components.continued_evaluation import history
from components import files
from tests.components.continued_evaluation.test_history import HASHES, record
steps = 0
def counted(function):
    def call(*arguments):
        global steps
        steps += 1
        if steps == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call
os.rename, files.sync = counted(os.rename), counted(files.sync)
np.save = counted(np.save)
history.add(sys.argv[1], record(8), b"stats", HASHES)
"""


def test_killed_at_any_step_it_leaves_all_or_nothing(tmp_path: Path) -> None:
    model = str(tmp_path / "small")
    history.add(model, record(7), b"", HASHES)
    killed = 0
    for step in range(1, 20):
        done = subprocess.run(
            [sys.executable, "-c", _FILE, model, str(step)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            check=False,
        )
        found = [entry.evidence.span for entry in history.read_all(model)]
        assert found in ([7], [7, 8])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 5
    assert [entry.number for entry in history.read_all(model)] == [1, 2]
    assert [p.name for p in (tmp_path / "small" / history.FOLDER).glob(".*")] == []
