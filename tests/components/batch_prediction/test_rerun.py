import fcntl
import logging
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.batch_prediction import inputs, job
from components.batch_prediction.inputs import Wanted
from components.batch_prediction.job import Options
from components.batch_prediction.run import Result, run
from components.batch_prediction.transform import Place, _PredictItem
from components.errors import PipelineStop
from components.inference.prediction_log import LogSettings
from components.registry import labels, store
from components.registry.labels import Mover
from tests.components.batch_prediction import samples

_TABLE = samples.rows(120)


class Case:
    """A finished job with version 1 over two files, in blocks of 20 rows."""

    def __init__(self, registry: Path, folder: Path) -> None:
        self.registry = folder / "registry" / "small"
        shutil.copytree(registry, self.registry)
        self.output, self.data = folder / "out", folder / "data"
        samples.write(self.data / "a.parquet", _TABLE[:70])
        samples.write(self.data / "b.parquet", _TABLE[70:])
        assert not self.run().done_before

    def run(self, **options: Any) -> Result:
        wanted = {"key": "id"} | options
        made = Options(f"{self.data}/*", str(self.output), **wanted)
        return run(made, str(self.registry), samples.FLAGS)

    def promote_2(self) -> None:
        labels.promote(str(self.registry), 2, Mover("ann", ""), over=1)

    def interrupt(self) -> Path:
        """Makes the job one that was killed; returns the shard that is missing."""
        (self.output / job.SUCCESS).unlink()
        lost = sorted((self.output / "predictions").iterdir())[2]
        lost.unlink()
        for left in (self.output / ".tmp-job.json", self.output / "predictions" / ".tmp-left"):
            left.write_text("half")
        return lost

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Everything that is in the output, with times of change."""
        paths = [path for path in self.output.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    def assert_predicted_by(self, version: int, table: list[samples.Row] = _TABLE) -> None:
        wanted = samples.expected(self.registry, version, table)
        samples.assert_each_once(self.output, wanted)
        assert {row["version"] for row in samples.predicted(self.output)} == {version}
        assert not [*self.output.rglob(".tmp-*")]


@pytest.fixture
def case(registry, tmp_path, monkeypatch):
    samples.set_block(monkeypatch, 20)
    return Case(registry, tmp_path)


def test_the_very_same_job_is_done_and_says_so(case):
    before = case.files()
    result = case.run()
    assert (result.done_before, result.rows, result.version) == (True, 120, 1)
    assert case.files() == before


def test_a_finished_job_is_another_one_after_a_promotion(case):
    case.promote_2()
    before = case.files()
    with pytest.raises(PipelineStop, match=r"finished job of .* is 2, and was 1\. Name"):
        case.run()
    assert case.files() == before
    assert case.run(version=1).done_before


def test_new_input_under_the_same_output_does_not_silently_do_nothing(case):
    samples.write(case.data / "c.parquet", samples.rows(5, seed=1))
    with pytest.raises(PipelineStop, match=r"other or changed input files: .*c\.parquet\. Name"):
        case.run()


def test_a_changed_input_is_another_job(case):
    os.utime(case.data / "a.parquet", (1, 1))
    with pytest.raises(PipelineStop, match=r"other or changed input files: .*a\.parquet\. Name"):
        case.run()


def test_an_unfinished_job_goes_on_with_its_own_version_and_keeps_its_shards(case, caplog):
    before = case.files()
    lost = case.interrupt()
    case.promote_2()
    with caplog.at_level(logging.INFO, "progress"):
        result = case.run()
    assert (result.done_before, result.rows, result.version) == (False, 120, 1)
    case.assert_predicted_by(1)
    now = case.files()
    assert {*now} == {*before}
    rewritten = {path for path in now if now[path][0] != before[path][0]}
    assert {name for name in rewritten if "/." not in name} == {
        str(lost),
        str(case.output / job.SUCCESS),
    }
    assert any("goes on with version 1" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"key": "hour"}, "--key is hour, and was id"),
        ({"columns": ["hour", "fare"]}, "--columns is hour,fare, and was not given"),
        ({"format": "jsonl"}, "--format is jsonl"),
        ({"version": 2}, "the version is 2, and was 1"),
    ],
)
def test_an_unfinished_job_with_other_options_is_refused(case, options, told):
    case.interrupt()
    before = case.files()
    with pytest.raises(PipelineStop, match=f"unfinished job of .*{told}.* go on with it"):
        case.run(**options)
    assert case.files() == before


def test_overwriting_leaves_nothing_of_the_old_job(case):
    (case.data / "a.parquet").unlink()
    (case.data / "bad.csv").write_text("id,hour\n1,x\n")
    case.promote_2()
    result = case.run(overwrite=True, key=None)
    assert (result.rows, result.rejected, result.version) == (50, 1, 2)
    (case.data / "bad.csv").unlink()
    assert case.run(overwrite=True).rejected == 0
    case.assert_predicted_by(2, _TABLE[70:])
    assert samples.rejected(case.output) == []


def test_overwriting_starts_an_unfinished_job_anew(case):
    case.interrupt()
    case.promote_2()
    case.run(overwrite=True)
    case.assert_predicted_by(2)


def test_overwriting_that_was_cut_short_leaves_the_old_job_unfinished(case):
    """The new job's file comes after the old shards are gone."""
    old = case.output / job.JOB
    files = inputs.find(f"{case.data}/*", str(case.output))
    options = Options(f"{case.data}/*", str(case.output), version=2, key="id", overwrite=True)
    begun = job.begin(options, str(case.registry), files)
    old.rename(case.output / ".kept")
    (case.output / job.JOB).mkdir()  # so that the last step fails
    with pytest.raises(OSError, match="directory"):
        job.open_output(case.output, begun)
    (case.output / job.JOB).rmdir()
    (case.output / ".kept").rename(old)
    assert samples.predicted(case.output) == []
    case.run()
    case.assert_predicted_by(1)


def test_a_first_run_killed_before_or_after_its_job_file_is_there(registry, tmp_path):
    path = samples.write(tmp_path / "a.parquet", _TABLE)
    output = tmp_path / "out"
    options = Options(str(path), str(output), key="id")
    begun = job.begin(options, str(registry), inputs.find(str(path), str(output)))
    output.mkdir()
    (output / job.JOB).mkdir()  # so that the file cannot be put there
    with pytest.raises(OSError, match="directory"):
        job.open_output(output, begun)
    (output / job.JOB).rmdir()
    assert run(options, str(registry), samples.FLAGS).rows == 120

    shutil.rmtree(output)
    output.mkdir()
    job.open_output(output, begun)
    for folder in ("predictions", "rejected"):
        (output / folder).rmdir()
    assert run(options, str(registry), samples.FLAGS).rows == 120
    samples.assert_each_once(output, samples.expected(registry, 1, _TABLE))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_alone(registry, tmp_path, overwrite):
    path = samples.write(tmp_path / "a.csv", _TABLE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    options = Options(str(path), str(tmp_path / "out"), overwrite=overwrite)
    with pytest.raises(PipelineStop, match="files that are not from batch prediction"):
        run(options, str(registry), samples.FLAGS)
    assert [found.name for found in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("output", "told"), [("a.csv", "is a file"), ("a.csv/x", "can't be writ")])
def test_an_output_that_cannot_be_a_folder(registry, tmp_path, output, told):
    path = samples.write(tmp_path / "a.csv", _TABLE)
    with pytest.raises(PipelineStop, match=told):
        run(Options(str(path), str(tmp_path / output)), str(registry), samples.FLAGS)


def test_a_job_file_that_is_damaged(case):
    (case.output / job.JOB).write_text('{"id": "x"}')
    with pytest.raises(PipelineStop, match=r"job\.json or _SUCCESS in .* is damaged"):
        case.run()


def test_two_runs_at_once_are_refused(case):
    case.interrupt()
    with (case.output / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PipelineStop, match="Another run writes to"):
            case.run()
    assert case.run().rows == 120


def test_a_worker_that_outlived_its_run_writes_nothing_into_the_next_one(case):
    files = inputs.find(f"{case.data}/*", str(case.output))
    there = job.Job.model_validate_json((case.output / job.JOB).read_text())
    manifest = store.read_manifest(str(case.registry), 1)
    wanted = Wanted(manifest["signature"], "id", ())
    items, _ = inputs.plan(files, wanted)
    shutil.rmtree(case.output / "predictions")
    place = Place(case.output, LogSettings(), Path())
    late = _PredictItem(there.model_copy(update={"id": "old"}), wanted, place)
    (found,) = late.process(items[0])
    assert "taken over by another run" in found["problem"]
    assert not (case.output / "predictions").exists()


def test_an_input_that_changes_meanwhile_stops_the_job(case):
    class Meddler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "predicted up to" in record.getMessage():
                os.utime(case.data / "b.parquet", (1, 1))

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
    assert case.run().rows == 120
    case.assert_predicted_by(1)
