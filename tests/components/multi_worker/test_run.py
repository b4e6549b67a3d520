"""Real workers on this machine: exact, also after any of them was killed at any time."""

import contextlib
import copy
import glob
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tensorflow as tf

from components.multi_worker import run
from components.trainer.core.interruption import Interrupted
from components.trainer.core.job import Job, Trained, train
from components.trainer.core.loop import TrainingError
from tests.components.multi_worker import processes
from tests.components.trainer import small_training


@pytest.fixture(autouse=True, scope="module")
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TF_CONFIG", raising=False)
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "small"


PLAIN = {"dropout": 0.0, "batch_norm": False, "members": 3}
TRAINING: dict[str, Any] = {
    "strategy": "multi_worker",
    "workers": 2,
    "steps": 120,
    "global_batch_size": 64,
    "evaluate_every_steps": 40,
    "early_stopping": {"metric": "auc", "patience": 100},
    "checkpoints": {"every_seconds": None, "every_steps": 10},
}


def _job(rows: Path, store: Path, model: dict[str, Any] | None = None, **training: Any) -> Job:
    """A job on the rows in `rows`, which are written if they are not there; `store` is shared."""
    chosen = small_training.settings(model, **TRAINING | training)
    job = small_training.job(rows, chosen, 1000)
    return replace(job, checkpoints=str(store), log_dir=str(store / "tensorboard"))


def _result(trained: Trained) -> dict[str, Any]:
    return _comparable(*small_training.last_checkpoint(trained.store))


def _comparable(progress: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """All that a training has, but for times."""
    position = progress["position"]
    for evaluation in position["evaluations"]:
        del evaluation["examples_per_second"]
    del position["seconds"]
    return {"position": position, "arrays": arrays}


def _assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["position"] == second["position"]
    for group, arrays in first["arrays"].items():
        for a, b in zip(arrays, second["arrays"][group], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def uninterrupted(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _result(run.train_group(_job(rows, tmp_path_factory.mktemp("reference"))))


def _chance() -> random.Random:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    return random.Random(seed)


def _when_at_step(job: Job, step: int, act: Callable[[], None]) -> threading.Thread:
    """Does something once there is a checkpoint of that step or a later one."""

    def wait() -> None:
        while True:
            found = glob.glob(f"{job.checkpoints}/*/step-*")
            if any(int(path.rpartition("-")[2]) >= step for path in found):
                return act()
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.prove
def test_killed_and_interrupted_it_ends_with_the_same_bits(
    rows: Path, tmp_path: Path, uninterrupted: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    chance = _chance()
    job = _job(rows, tmp_path)
    caplog.set_level(logging.INFO)

    def kill() -> None:
        time.sleep(chance.random() * 0.03)
        chance.choice(processes.workers_of(os.getpid())).kill()

    _when_at_step(job, chance.randrange(10, 60), kill)
    _when_said(caplog, "goes on at step", lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"interrupted at step .*; checkpoint written"):
        run.train_group(job)
    assert not processes.workers_of(os.getpid())
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any(
        text.endswith("starting the group again, 1 of 3 restarts, from its last checkpoint")
        and "was killed by SIGKILL" in text
        for text in warnings
    )
    done = run.train_group(job)
    assert len(done.progress["checkpoints"]["resumed_at"]) == 2
    _assert_same(_result(done), uninterrupted)
    assert done.model.variables[0].numpy().shape == uninterrupted["arrays"]["model"][0].shape


def _when_said(caplog: pytest.LogCaptureFixture, words: str, act: Callable[[], None]) -> None:
    def wait() -> None:
        while not any(words in record.getMessage() for record in list(caplog.records)):
            time.sleep(0.02)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_a_worker_ends_with_its_parent() -> None:
    command = [sys.executable, "-m", "components.trainer.core.worker"]
    start = (
        "import os, subprocess, time; "
        f"print(subprocess.Popen([*{command}, str(os.getpid())]).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", start],
        cwd=processes.ROOT,
        stdin=subprocess.PIPE,  # the worker waits here for its job
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(random.random())
    assert worker.is_running()
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([worker], timeout=5)[1]


@pytest.mark.prove
def test_killed_at_any_time_it_ends_with_the_same_bits(
    rows: Path, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    chance = _chance()

    def kill() -> None:
        for _ in range(3):
            time.sleep(chance.random() * 15)
            if found := processes.workers_of(os.getpid()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    chance.choice(found).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    done = run.train_group(_job(rows, tmp_path))
    thread.join()
    _assert_same(_result(done), uninterrupted)


@pytest.mark.prove
@pytest.mark.parametrize("victims", [[0], [0, 1]])
def test_a_worker_that_hangs_is_noticed_and_the_group_starts_again(
    rows: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    victims: list[int],
) -> None:
    """TensorFlow misses one within seconds, if another lives; the bound is for all that it doesn't.

    It has to be longer than a worker takes to start, on a busy machine too.
    """
    seconds = 30
    job = _job(rows, tmp_path, hang_seconds=seconds, restarts=9)
    stopped: list[float] = []

    def stop() -> None:
        found = processes.workers_of(os.getpid())
        for victim in victims:
            found[victim].suspend()
        stopped.append(time.time())

    _when_at_step(job, 30, stop)
    done = run.train_group(job)
    [first, *_] = [r for r in caplog.records if "starting the group again" in r.getMessage()]
    both = "worker 0 and worker 1 came no further for 30 s (training.hang_seconds)"
    assert first.getMessage().startswith(both if len(victims) == 2 else "worker 1 lost the others")
    assert first.created - stopped[0] < seconds + 5
    assert done.progress["checkpoints"]["resumed_at"]
    _assert_same(_result(done), uninterrupted)


def test_workers_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPUs are made up: not verified on hardware."""
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5))
    assert run.shares(2) == [{"TF_NUM_INTRAOP_THREADS": "2"}] * 2
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU", "GPU"])
    for visible, expected in (("", ["0", "1"]), ("4,7", ["4", "7"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [share["CUDA_VISIBLE_DEVICES"] for share in run.shares(2)] == expected
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert run.shares(9)[8]["TF_NUM_INTRAOP_THREADS"] == "3"


@pytest.mark.prove
def test_too_many_deaths_end_the_training(rows: Path, tmp_path: Path) -> None:
    job = _job(rows, tmp_path, restarts=1)
    is_over = threading.Event()

    def kill() -> None:
        while not is_over.wait(0.5):
            for worker in processes.workers_of(os.getpid())[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(TrainingError, match=r"given up after 1 restarts: worker \d was killed by"):
        run.train_group(job)
    is_over.set()


@pytest.mark.prove
def test_an_overflow_in_one_worker_is_one_in_all(tmp_path: Path) -> None:
    """Or else the others would wait for ever for the worker that skips the step."""
    rows = tmp_path / "rows"
    job = _job(rows, tmp_path / "checkpoints", PLAIN, precision="float16", steps=60)
    values = small_training.columns(1000)
    is_extreme = np.isin(np.arange(1000), (7, 700))
    numbers = np.where(is_extreme[:, None] & [True, False], -1000, values.numbers)
    labels = np.where(is_extreme, 1, values.labels)
    extreme = values._replace(numbers=tf.constant(numbers), labels=tf.constant(labels))
    small_training.write_examples(rows / "examples" / "train-00000.gz", extreme)
    assert run.train_group(job).progress["position"]["step"] == 60


@pytest.mark.prove
def test_chief_and_member_agree_with_one_device(rows: Path, tmp_path: Path) -> None:
    """The same command in two places that share a folder; no dropout, as replicas draw the same."""
    job = _job(rows, tmp_path / "shared", PLAIN, workers=None)
    places = run.loopback(2)
    member, chief = (processes.start(job, TF_CONFIG=place) for place in reversed(places))
    alone = copy.deepcopy(job)
    alone.settings["training"]["strategy"] = "one_device"
    alone.checkpoints = str(tmp_path / "alone")
    expected = train(alone).model.variables
    outputs = [process.communicate(timeout=120)[0] for process in (chief, member)]
    assert (chief.returncode, member.returncode) == (0, 0), outputs
    assert "trained 120 steps" in outputs[0]
    assert "waiting for the chief at 127.0.0.1" in outputs[1]
    found = small_training.last_checkpoint(job.store(2))
    for variable, array in zip(expected, found[1]["model"], strict=True):
        np.testing.assert_allclose(variable.numpy(), array, atol=1e-6)


@pytest.mark.prove
@pytest.mark.parametrize("victim", ["chief", "member's worker"])
def test_a_cluster_that_loses_one_starts_again_and_ends_with_the_same_bits(
    rows: Path, tmp_path: Path, uninterrupted: dict[str, Any], victim: str
) -> None:
    job = _job(rows, tmp_path, workers=None)
    killed: list[float] = []

    def kill() -> None:
        chief.kill() if victim == "chief" else processes.workers_of(member.pid)[0].kill()
        killed.append(time.monotonic())

    chief, member = (processes.start(job, TF_CONFIG=place) for place in run.loopback(2))
    _when_at_step(job, 30, kill)
    outputs = [process.communicate(timeout=120)[0] for process in (chief, member)]
    print(f"{time.monotonic() - killed[0]:.1f} s after the kill", outputs)
    expected = {"chief": [-9, 75], "member's worker": [75, 75]}
    assert [chief.returncode, member.returncode] == expected[victim]
    assert any("goes on from its last checkpoint" in output for output in outputs)
    chief, member = (processes.start(job, TF_CONFIG=place) for place in run.loopback(2))
    outputs = [process.communicate(timeout=120)[0] for process in (chief, member)]
    assert (chief.returncode, member.returncode) == (0, 0), outputs
    found = small_training.last_checkpoint(job.store(2))
    assert found[0]["checkpoints"]["resumed_at"]
    _assert_same(_comparable(*found), uninterrupted)
