import multiprocessing
import random
import shutil
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.batch_prediction.job import Form, Options
from components.batch_prediction.run import run
from components.inference.prediction_log import LogSettings
from components.registry import labels
from components.registry.labels import Mover
from tests.components.batch_prediction import samples

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tensorflow", __name__])
_TABLE = samples.rows(2000)
_LOG = LogSettings(enabled=True)


def _run(registry: str, folder: str, overwrite: bool) -> None:
    options = Options(f"{folder}/data/*", f"{folder}/out", form=Form(key="id"), overwrite=overwrite)
    run(options, registry, samples.FLAGS, _LOG, f"{folder}/log")


class Killable:
    """A job of 40 files, in a process of its own each time it is run."""

    def __init__(self, registry: Path, folder: Path) -> None:
        self.registry, self.folder = folder / "registry" / "small", folder
        self.output = folder / "out"
        shutil.copytree(registry, self.registry)
        for number in range(40):
            ending = "parquet" if number % 2 else "csv"
            part = _TABLE[number * 50 : number * 50 + 50]
            samples.write(folder / "data" / f"{number}.{ending}", part)
        self.table = _TABLE

    def start(self, overwrite: bool = False) -> BaseProcess:
        arguments = (str(self.registry), str(self.folder), overwrite)
        process = _SERVER.Process(target=_run, args=arguments)
        process.start()
        return process

    def finish(self) -> None:
        process = self.start()
        process.join()
        assert process.exitcode == 0

    def shards(self) -> list[Path]:
        return [*self.output.glob("predictions/*.parquet")]

    def kill_at(self, process: BaseProcess, shards: int, more: float) -> None:
        """Kills the process some time after it has so many shards, unless it ends before."""
        deadline = time.monotonic() + 120
        while process.is_alive() and len(self.shards()) < shards:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.join(more)
        process.kill()
        process.join()

    def assert_whole(self) -> None:
        """Each file that is there can be read to its end."""
        for path in self.folder.rglob("*.parquet"):
            pq.read_table(path)

    def assert_done_by(self, version: int) -> None:
        wanted = samples.expected(self.registry, version, self.table)
        samples.assert_each_once(self.output, wanted)
        assert {row["version"] for row in samples.predicted(self.output)} == {version}
        assert not [*self.output.rglob(".tmp-*")]


@pytest.fixture
def killable(registry, tmp_path):
    return Killable(registry, tmp_path)


def test_killed_at_random_moments_and_run_again_each_key_is_there_once(killable):
    chance = random.Random(7)
    for shards in (0, 1, 10, 25, 39):
        killable.kill_at(killable.start(), shards, chance.random() / 50)
        killable.assert_whole()
        if shards == 10:
            labels.promote(str(killable.registry), 2, Mover("ann", ""), over=1)
    before = {path: path.stat().st_mtime_ns for path in killable.shards()}
    assert len(before) >= 25
    killable.finish()
    assert before.items() <= {p: p.stat().st_mtime_ns for p in killable.shards()}.items()
    killable.assert_done_by(1)
    files = [*killable.folder.glob("log/small/*/*.parquet")]
    logged = [key for path in files for key in pq.read_table(path)["key"].to_pylist()]
    assert sorted(logged) == sorted(row["id"] for row in killable.table)


def test_killed_while_overwriting_there_is_never_a_mix(killable):
    killable.finish()
    labels.promote(str(killable.registry), 2, Mover("ann", ""), over=1)
    process = killable.start(overwrite=True)
    killable.kill_at(process, 0, 0.25)
    for shards in (0, 15):
        killable.kill_at(killable.start(overwrite=True), shards, 0.01)
        versions = {row["version"] for row in samples.predicted(killable.output)}
        assert len(versions) <= 1
    process = killable.start(overwrite=True)
    process.join()
    killable.assert_done_by(2)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(8))
def test_a_series_of_kills(killable, seed):
    chance = random.Random(seed)
    version = 1
    for _ in range(chance.randrange(1, 8)):
        overwrite = chance.random() < 0.3
        process = killable.start(overwrite)
        killable.kill_at(process, 0, chance.random() * 1.5)
        killable.assert_whole()
        assert len({row["version"] for row in samples.predicted(killable.output)}) <= 1
        if chance.random() < 0.3:
            over, version = version, 3 - version
            labels.promote(str(killable.registry), version, Mover("ann", ""), over=over)
    process = killable.start(overwrite=(killable.output / "_SUCCESS").exists())
    process.join()
    assert process.exitcode == 0
    (found,) = {row["version"] for row in samples.predicted(killable.output)}
    killable.assert_done_by(found)
