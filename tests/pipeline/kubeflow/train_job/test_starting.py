"""Whether the time for the workers' start is counted as it should be."""

import logging

import pytest

from components.errors import PipelineStop
from pipeline.kubeflow.train_job.pods import Pod
from pipeline.kubeflow.train_job.starting import Start

_RUNS = [Pod(f"p{n}", n, True, None, "") for n in (0, 1)]
_WAITS = [_RUNS[0], Pod("p2", 1, False, None, "ImagePullBackOff: no such image")]


def test_a_queue_takes_no_time_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    start = Start("trainer-0", 2, seconds=0.0)
    for _ in range(3):
        start.look([], is_queued=True)
    assert [record.getMessage() for record in caplog.records] == [
        "TrainJob trainer-0 waits: it is suspended until a queue admits it"
    ]


def test_a_start_after_a_restart_has_its_own_time() -> None:
    start = Start("trainer-0", 2, seconds=0.0)
    start.look(_RUNS, is_queued=False)
    with pytest.raises(PipelineStop, match="p2: ImagePullBackOff: no such image"):
        for _ in range(2):
            start.look(_WAITS, is_queued=False)


def test_pods_that_were_not_even_made_are_counted() -> None:
    start = Start("trainer-0", 2, seconds=0.0)
    with pytest.raises(PipelineStop, match="0 of 2 pods were made, see kubectl describe"):
        start.look([], is_queued=False)
