import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.inference.prediction_log import LogSettings
from tests.components.batch_prediction import samples

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tensorflow", __name__])


class Killable(samples.Case):
    """A job of 40 files, in a process of its own each time it is run."""

    def start(self, overwrite: bool = False) -> BaseProcess:
        log = {"log": LogSettings(enabled=True), "log_folder": f"{self.folder}/log"}
        process = _SERVER.Process(target=self.run, kwargs={"overwrite": overwrite, **log})
        process.start()
        return process

    def finish(self, overwrite: bool = False) -> None:
        process = self.start(overwrite)
        process.join()
        assert process.exitcode == 0

    def shards(self) -> list[Path]:
        return [*self.output.glob("predictions/*.parquet")]

    def kill_at(self, process: BaseProcess, shards: int, more: float) -> None:
        """Kills the process some time after it has so many shards, unless it ends before.

        Each file that is there can be read to its end, and there is no mix of versions.
        """
        deadline = time.monotonic() + 120
        while process.is_alive() and len(self.shards()) < shards:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.join(more)
        process.kill()
        process.join()
        for path in self.folder.rglob("*.parquet"):
            pq.read_table(path)
        assert len({row["version"] for row in samples.predicted(self.output)}) <= 1


@pytest.fixture
def killable(registry, tmp_path):
    return Killable(registry, tmp_path, samples.rows(2000), files=40)


def test_killed_at_random_moments_and_run_again_each_key_is_there_once(killable):
    chance = random.Random(7)
    for shards in (0, 1, 10, 25, 39):
        killable.kill_at(killable.start(), shards, chance.random() / 50)
        if shards == 10:
            killable.promote(2)
    before = {path: path.stat().st_mtime_ns for path in killable.shards()}
    assert len(before) >= 25
    killable.finish()
    assert before.items() <= {p: p.stat().st_mtime_ns for p in killable.shards()}.items()
    killable.assert_predicted_by(1)
    files = [*killable.folder.glob("log/small/*/*.parquet")]
    logged = [key for path in files for key in pq.read_table(path)["key"].to_pylist()]
    assert sorted(logged) == sorted(row["id"] for row in killable.table)


def test_killed_while_overwriting_there_is_never_a_mix(killable):
    killable.finish()
    killable.promote(2)
    for shards, more in ((0, 0.25), (0, 0.01), (15, 0.01)):
        killable.kill_at(killable.start(overwrite=True), shards, more)
    killable.finish(overwrite=True)
    killable.assert_predicted_by(2)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(8))
def test_a_series_of_kills(killable, seed):
    chance = random.Random(seed)
    version = 1
    for _ in range(chance.randrange(1, 8)):
        killable.kill_at(killable.start(chance.random() < 0.3), 0, chance.random() * 1.5)
        if chance.random() < 0.3:
            version = 3 - version
            killable.promote(version)
    killable.finish(overwrite=(killable.output / "_SUCCESS").exists())
    (found,) = {row["version"] for row in samples.predicted(killable.output)}
    killable.assert_predicted_by(found)
