"""Checkpoints: what is found again, what is not, and what a damaged or unwritable one does."""

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core import data
from components.trainer.core.checkpoints import CheckpointError, Keeper, Store
from components.trainer.core.job import Job, train, trained
from tests.components.trainer import small_training as small


def _store(root: Path, keep: int = 2, pipeline: str = "small", **identity: Any) -> Store:
    return Store(str(root), pipeline, {"data": "d1", **identity}, keep)


def _save(store: Store, *steps: int) -> None:
    store.open()
    for step in steps:
        store.save({"model": [tf.Variable([float(step)] * 1000)]}, {"step": step})


def _found(store: Store) -> int | None:
    variable = tf.Variable(tf.zeros([1000]))
    progress = store.restore({"model": [variable]})
    step = int(progress["step"]) if progress else None
    np.testing.assert_array_equal(variable.numpy(), [float(step or 0)] * 1000)
    return step


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with a few hundred KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_newest_is_found_and_the_last_n_are_kept(tmp_path: Path) -> None:
    store = _store(tmp_path)
    assert _found(store) is None
    left = Path(store.folder) / ".tmp-123"
    left.mkdir(parents=True)
    (left / "variables.data-00000-of-00001").write_bytes(b"half")  # a killed write
    _save(store, 10, 20, 30)
    assert _found(store) == 30
    assert sorted(p.name for p in Path(store.folder).iterdir()) == [
        "identity.json",
        "step-000000020",
        "step-000000030",
    ]


def _truncate(folder: Path) -> None:
    data = folder / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])


def _from_elsewhere(folder: Path) -> None:
    other = _store(folder.parent.parent, data="d2")
    _save(other, 30)
    shutil.rmtree(folder)
    shutil.copytree(Path(other.folder) / folder.name, folder)


def _with_other_shapes(folder: Path) -> None:
    shutil.rmtree(folder)
    _store(folder.parent.parent).save({"model": [tf.Variable([1.0, 2.0])]}, {"step": 30})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": _truncate,
    "no index": lambda folder: (folder / "variables.index").unlink(),
    "no hashes": lambda folder: (folder / "SHA256SUMS").write_text(""),
    "another training's": _from_elsewhere,
    "other shapes": _with_other_shapes,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_one_is_passed_over_with_a_word(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = _store(tmp_path)
    _save(store, 20, 30)
    DAMAGES[damage](Path(store.folder) / "step-000000030")
    with caplog.at_level(logging.WARNING, "progress"):
        assert _found(store) == 20
        shutil.rmtree(Path(store.folder) / "step-000000020")
        assert _found(store) is None
    assert "checkpoint of step 30 is not usable, taking the one before" in caplog.text
    assert "starts fresh: none of its checkpoints is usable" in caplog.text
    _save(store, 30)
    assert _found(store) == 30


def test_every_byte_is_covered(tmp_path: Path) -> None:
    """Whichever byte of whichever file is another one, the checkpoint before is taken."""
    store = _store(tmp_path)
    _save(store, 20, 30)
    for path in (Path(store.folder) / "step-000000030").iterdir():
        whole = path.read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // 25)):
            path.write_bytes(
                whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :]
            )
            assert _found(store) == 20, f"{path.name}, byte {position}"
        path.write_bytes(whole)
    assert _found(store) == 30


def test_shards_that_cannot_be_written_are_one_clear_error(small_disk: Path) -> None:
    job = small.job(small_disk.parent, small.settings(memory_mib=0.001))
    job.checkpoints = str(small_disk)
    (small_disk / "filler").write_bytes(b"x" * (200 << 10))
    with pytest.raises(CheckpointError, match=r"Rows that do not fit into 0.001 MiB could not be"):
        train(job)


def test_full_or_read_only_disk_is_one_clear_error_and_the_one_before_stays_good(
    small_disk: Path,
) -> None:
    store = _store(small_disk)
    _save(store, 10)
    (small_disk / "filler").write_bytes(b"x" * (200 << 10))
    big = {"model": [tf.Variable(tf.zeros([30_000]))]}
    with pytest.raises(CheckpointError, match=r"step 20 could not .* step 10 stays good") as error:
        store.save(big, {"step": 20})
    assert "Free space there" in str(error.value)
    assert sorted(os.listdir(store.folder)) == ["identity.json", "step-000000010"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(CheckpointError, match=r"Read-only.* step 10 stays good"):
        store.save({"model": [tf.Variable([1.0])]}, {"step": 20})
    assert _found(store) == 10


def test_another_training_starts_fresh_and_says_why(tmp_path: Path) -> None:
    before = {"hyperparameters": {"training": {"epochs": 3, "seed": 1}}, "code": "a" * 16}
    _save(_store(tmp_path, **before), 40)
    now = {"hyperparameters": {"training": {"epochs": 5, "seed": 1}}, "code": "b" * 16}
    other = _store(tmp_path, **now)
    assert _found(other) is None
    assert other.why_fresh() == (
        "starts fresh: the checkpoint of step 40 is another training's "
        "(code changed; training.epochs was 3, is 5)"
    )
    assert _store(tmp_path, pipeline="other", **now).why_fresh() is None
    assert _store(tmp_path, **before).why_fresh() is None


def test_interval_by_steps_and_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    by_steps = Keeper(_store(tmp_path), {"every_steps": 10, "every_seconds": None}, True, None)
    assert [step for step in range(1, 25) if by_steps.is_due(step)] == list(range(10, 25))
    by_time = Keeper(_store(tmp_path), {"every_steps": None, "every_seconds": 30.0}, True, None)
    now = 29.9
    assert not by_time.is_due(1000)
    now = 30.0
    assert by_time.is_due(1000)
    by_time._slowest = 2.0
    now = 199.0
    assert not by_time.is_due(1000), "two seconds of saving are over 1 % of 199 seconds"
    now = 200.0
    assert by_time.is_due(1000)


SETTINGS: dict[str, Any] = {
    "early_stopping": {"metric": "loss", "patience": 4},
    "checkpoints": {"every_steps": 7, "keep": 3},
}


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(256.0, id="in memory"),
        pytest.param(0.002, id="beyond memory", marks=pytest.mark.prove),
    ],
)
def test_with_inputs_made_again_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: float
) -> None:
    """The same rows in other files and in another order, as Beam's workers leave them."""
    whole = train(_job(tmp_path / "whole", memory), hand_over=True)
    before = _job(tmp_path / "killed", memory)
    small.interrupt(before, monkeypatch, 28)
    _make_again(tmp_path / "killed")
    after = _job(tmp_path / "killed", memory)
    done = train(after, hand_over=True)
    assert done.progress["checkpoints"]["resumed_at"] == [21]
    for a, b in zip(done.model.variables, whole.model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.prove
def test_shards_lost_and_inputs_made_again_start_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = _job(tmp_path, memory=0.002)
    small.interrupt(job, monkeypatch, 28)
    for shards in Path(job.checkpoints).glob("*/rows-0"):
        shutil.rmtree(shards)
    _make_again(tmp_path)
    with caplog.at_level(logging.WARNING, "progress"):
        done = train(_job(tmp_path, memory=0.002))
    assert "the rows beyond memory were written again in another order" in caplog.text
    assert done.progress["checkpoints"]["resumed_at"] == []


def _job(folder: Path, memory: float) -> Job:
    """A job known by its rows, as the Trainer's is."""
    job = small.job(folder, small.settings(**SETTINGS, memory_mib=memory))
    job.identity["data"] = data.fingerprint(job.train_files, job.inputs)
    return job


def _make_again(folder: Path) -> None:
    (folder / "examples" / "train-00000.gz").unlink()
    rows, order = small.columns(500), np.random.default_rng(7).permutation(500)
    for shard in range(2):
        path = folder / "examples" / f"train-{shard:05d}.gz"
        small.write_examples(path, rows.take(order[shard::2]), reverse=True)


def test_resumed_curves_have_one_run_without_gap_or_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = small.job(tmp_path, small.settings(**SETTINGS))
    small.interrupt(job, monkeypatch, 28)
    shutil.rmtree(job.log_dir)  # as the local runner does with what a killed component left
    done = train(job)
    assert done.progress["checkpoints"]["resumed_at"] == [21]
    steps: dict[str, list[int]] = {}
    for file in Path(job.log_dir).iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                steps.setdefault(value.tag, []).append(event.step)
    expected = [e["step"] for e in done.progress["position"]["evaluations"]]
    assert expected == sorted(set(expected))
    assert steps.keys() == {
        "loss/train",
        "loss/eval",
        "auc/eval",
        "accuracy/eval",
        "examples_per_second",
    }
    assert all(found == expected for found in steps.values())


def test_model_of_a_finished_job_is_its_last_checkpoint(tmp_path: Path) -> None:
    """What a training elsewhere (workers, TPU) leaves is what this process exports."""
    job = small.job(tmp_path, small.settings(**SETTINGS))
    done = train(job, hand_over=True)
    again = trained(job, replicas=1)
    for a, b in zip(done.model.variables, again.model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert again.progress["position"] == done.progress["position"]
    progress = json.loads(next(Path(done.store.folder).glob("step-*/progress.json")).read_text())
    assert progress["steps"] == 48
    record = done.progress["checkpoints"]
    assert record["saved"] >= 2
    assert 0 < record["seconds"] < done.progress["position"]["seconds"]
    done.store.remove()
    assert os.listdir(job.checkpoints) == []
