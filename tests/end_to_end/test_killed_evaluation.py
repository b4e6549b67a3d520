"""An evaluation that is killed again and again is one evaluation, and one retraining."""

import os
import signal
from pathlib import Path

import pytest

from components.continued_evaluation import history
from components.registry import store
from tests import small
from tests.end_to_end.test_continued_evaluation import Loop

MOMENTS = [
    "ExampleGen ",
    "JudgedModels",
    "Evaluator ",
    "Decide",
    "Retraining",
    "Transform ",
    "Trainer",
    "RegistryPush",
]
"""What it says before it is killed: each time it comes a little further."""


def killed_after(loop: Loop, words: str) -> None:
    process = loop.start()
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.prove
def test_nothing_is_counted_twice(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "project")
    loop.arrive(1, small.rows(1500, seed=1))
    assert loop.project.run().code == 0
    loop.arrive(4, small.rows(1500, seed=4))  # three spans on: a retraining is due
    for words in MOMENTS:
        killed_after(loop, words)
        assert len(history.read_all(loop.model)) <= 1
    done = loop.evaluate()
    assert done.code == 0, done.output
    [record] = history.read_all(loop.model)
    assert (record.number, record.decision.action) == (1, "retrain")
    assert store.list_versions(loop.model) == [1, 2]
    assert loop.champion() == 2
    followed = history.followed(loop.model, record.id)
    assert followed is not None
    assert followed.version == 2
