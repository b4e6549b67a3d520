"""Silence of the step, and only that, ends its workers."""

import threading
from pathlib import Path

from pipeline.kubeflow.train_job import heartbeat
from tests.pipeline.kubeflow.train_job.waiting_for import until


def test_silence_is_noticed_and_life_is_not_mistaken_for_it(tmp_path: Path) -> None:
    file, silent = tmp_path / "heartbeat", threading.Event()
    with heartbeat.beating(file, 0.5):
        before = file.read_text()
        watch = heartbeat.Watch(file, 1.0, silent.set)
        assert not silent.wait(1.5)
        assert not watch.is_quiet()
        assert file.read_text() != before
    until(watch.is_quiet)
    assert silent.wait(30)


def test_a_file_that_is_gone_is_silence(tmp_path: Path) -> None:
    silent = threading.Event()
    heartbeat.Watch(tmp_path / "heartbeat", 0.2, silent.set)
    assert silent.wait(30)
