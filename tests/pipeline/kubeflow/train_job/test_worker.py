"""What a pod does before it trains."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.kubeflow.train_job import names, staging
from tests.pipeline.kubeflow.train_job.scripted import ROOT


def _run(folder: Path, place: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-m", "pipeline.kubeflow.train_job.worker", str(folder)]
    return subprocess.run(program, cwd=ROOT, env=os.environ | place, capture_output=True, text=True)


def test_a_pod_without_the_workspace_says_so_and_is_not_started_again(tmp_path: Path) -> None:
    place = {names.ADDRESSES: "a:1,b:1", names.SILENCE: "60", "JOB_COMPLETION_INDEX": "1"}
    done = _run(tmp_path / "none", place)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Trainer failed: {tmp_path / 'none'} is not there")


@pytest.mark.prove
def test_what_the_chief_has_finished_is_not_trained_again(tmp_path: Path) -> None:
    """The folder has no step to run: a pod was lost after the chief's end, and all start again."""
    (tmp_path / staging.OUTPUT).write_text("{}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    place = {names.ADDRESSES: address, names.SILENCE: "60", "JOB_COMPLETION_INDEX": "0"}
    assert _run(tmp_path, place).returncode == 0
