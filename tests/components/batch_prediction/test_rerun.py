"""What a second run makes of what a first one left."""

import fcntl
import logging
import os
import resource
from pathlib import Path

import pytest

from components.batch_prediction import job
from components.batch_prediction.job import Job
from components.batch_prediction.run import PredictItem, columns_of
from components.errors import PipelineStop
from components.inference.prediction_log import LogSettings
from components.registry import signature, store
from tests.components.batch_prediction import samples


class Case(samples.Case):
    """A finished job with version 1 over three files."""

    def interrupt(self) -> Path:
        """Makes the job one that was killed; returns the shard that is missing."""
        (self.output / job.SUCCESS).unlink()
        lost = sorted((self.output / "predictions").iterdir())[1]
        lost.unlink()
        (self.output / ".tmp-run").mkdir()
        for left in (".tmp-job.json", ".tmp-run/part-00001.parquet"):
            (self.output / left).write_text("half")
        return lost

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Everything that is in the output, with times of change."""
        paths = [path for path in self.output.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


@pytest.fixture
def case(registry, tmp_path):
    made = Case(registry, tmp_path, samples.rows(60), files=3)
    assert not made.run().done_before
    return made


def test_the_very_same_job_is_done_and_says_so_and_after_a_promotion_it_is_another(case):
    before = case.files()
    result = case.run()
    assert (result.done_before, result.rows, result.version) == (True, 60, 1)
    case.promote(2)
    with pytest.raises(PipelineStop, match=r"finished job of .* is 2, and was 1\. Name"):
        case.run()
    assert case.files() == before
    assert case.run(version=1).done_before
    samples.write(case.data / "c.parquet", samples.rows(5, seed=1))
    os.utime(case.data / "0.parquet", (1, 1))
    changed = r"other or changed input files: .*0\.parquet, .*c\.parquet\. Name"
    with pytest.raises(PipelineStop, match=changed):
        case.run(version=1)


def test_an_unfinished_job_goes_on_with_its_own_version_and_keeps_its_shards(case, caplog):
    before = case.files()
    lost = case.interrupt()
    case.promote(2)
    with caplog.at_level(logging.INFO, "progress"):
        result = case.run()
    assert (result.done_before, result.rows, result.version) == (False, 60, 1)
    case.assert_predicted_by(1)
    now = case.files()
    assert {*now} == {*before}
    rewritten = {path for path in now if now[path][0] != before[path][0] and "/." not in path}
    assert rewritten == {str(lost), str(case.output / job.SUCCESS)}
    assert any("goes on with version 1" in record.getMessage() for record in caplog.records)


def test_an_unfinished_job_with_other_options_is_refused(case):
    case.interrupt()
    before = case.files()
    for options, told in (
        ({"key": "hour"}, "key is hour, and was id"),
        ({"columns": ["hour", "fare"]}, r"columns is \['hour', 'fare'\], and was not given"),
        ({"version": 2}, "version is 2, and was 1"),
    ):
        with pytest.raises(PipelineStop, match=f"unfinished job of .*{told}.* go on with it"):
            case.run(**options)
    assert case.files() == before


def test_overwriting_leaves_nothing_of_the_old_job(case):
    case.interrupt()
    (case.data / "0.parquet").unlink()
    (case.data / "bad.csv").write_text("id,hour\n1,x\n")
    case.promote(2)
    result = case.run(overwrite=True, key=None)
    assert (result.rows, result.rejected, result.version) == (40, 1, 2)
    (case.data / "bad.csv").unlink()
    assert case.run(overwrite=True).rejected == 0
    case.assert_predicted_by(2, [row for number, row in enumerate(case.table) if number % 3])
    assert samples.rejected(case.output) == []


def test_a_start_that_was_cut_short_before_its_job_file_was_there(case):
    """Old shards go before the new job's file comes: the folder holds the old job, unfinished."""
    old = case.output / job.JOB
    before = old.read_text()
    blocked = pytest.MonkeyPatch()
    blocked.setattr(job.files, "write_atomically", lambda *_: os.mkdir("/proc/none"))
    with blocked.context(), pytest.raises(OSError, match="/proc/none"):
        case.run(overwrite=True, version=2)
    blocked.undo()
    assert (old.read_text(), samples.predicted(case.output)) == (before, [])
    assert case.run().version == 1
    case.assert_predicted_by(1)


def test_a_folder_of_something_else_is_left_alone(case, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    case.output = other
    for overwrite in (False, True):
        with pytest.raises(PipelineStop, match="files that are not from batch prediction"):
            case.run(overwrite=overwrite)
    assert [found.name for found in other.iterdir()] == ["thesis.txt"]
    for name, told in (("thesis.txt", "is a file"), ("thesis.txt/x", "can't be written")):
        case.output = other / name
        with pytest.raises(PipelineStop, match=told):
            case.run()


def test_a_damaged_job_file_and_two_runs_at_once_are_refused(case):
    case.interrupt()
    with (case.output / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PipelineStop, match="Another run writes to"):
            case.run()
    assert case.run().rows == 60
    (case.output / job.JOB).write_text('{"id": "x"}')
    with pytest.raises(PipelineStop, match=r"job\.json or _SUCCESS in .* is damaged"):
        case.run()


def test_a_worker_that_outlived_its_run_writes_nothing_into_the_next_one(case):
    there = Job.model_validate_json((case.output / job.JOB).read_text())
    for shard in (case.output / "predictions").iterdir():
        shard.unlink()
    of = signature.of(store.read_manifest(str(case.registry), 1))
    columns, gone = columns_of(of, there.form), case.output / ".tmp-of-a-run-that-was-killed"
    late = PredictItem(there, there.form, columns, case.output, gone, LogSettings(), Path())
    late.process(("part-00000", [there.files[0].path], "0.parquet"))
    assert not [*(case.output / "predictions").iterdir()]


def test_an_input_that_changes_meanwhile_stops_the_job(case):
    class Meddler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            os.utime(case.data / "1.csv", (1, 1))

    progress, meddler = logging.getLogger("progress"), Meddler()
    progress.addHandler(meddler)
    progress.setLevel(logging.INFO)
    try:
        with pytest.raises(PipelineStop, match="Input files have changed"):
            case.run(overwrite=True)
    finally:
        progress.removeHandler(meddler)
        progress.setLevel(logging.NOTSET)
    assert not (case.output / job.SUCCESS).exists()


def test_a_full_disk_stops_the_job_with_one_message_and_it_goes_on_later(case):
    case.interrupt()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PipelineStop, match=r"The predictions can't be written: .*too large"):
            case.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert case.run().rows == 60
    case.assert_predicted_by(1)
