"""Freeing disk: what goes, what stays, and that a run after it is right.

One proof with real runs; the rest on a workspace made by hand, for what runs take long to come to.
"""

import contextlib
import fcntl
import os
import pty
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from typer.testing import CliRunner

from components.errors import PipelineStop
from components.registry import labels, store
from components.registry.labels import Mover
from pipeline import gc, loading
from pipeline.cli import app
from tests.end_to_end.project import Project

DAY = 86_400


def _artifacts(workspace: Path) -> list[Any]:
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(workspace / "metadata.db")
    return MetadataStore(connection).get_artifacts()


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _put(path: Path, days: float = 0, size: int = 10_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0" * size)
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


@pytest.mark.prove
def test_after_it_a_project_has_its_versions_and_its_last_run_and_goes_on(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    workspace = project.folder / "workspace"
    split = "--set=data.split={by: row, train: 0.5, eval: 0.3, test: 0.2}"
    runs = [("--set=training.epochs=1", f"--set=training.seed={seed}") for seed in (1, 2, 3)]
    runs[0] = (*runs[0], split)  # into examples that version 1 names
    for settings in runs:
        assert project.run(*settings).code == 0
    versions = _tree(workspace / "registry")
    shown = project.call("gc", "--keep-runs", "1")
    assert "Nothing was removed. To remove it, add --yes" in shown.output
    # Of the first run all but schema and examples, of the second what the third made anew.
    assert "artifacts that no kept run or version needs 17 " in " ".join(shown.output.split())
    removed = project.call("gc", "--keep-runs", "1", "--yes")
    assert (removed.code, "Freed " in removed.output) == (0, True), removed.output
    assert _tree(workspace / "registry") == versions
    for artifact in _artifacts(workspace):
        assert Path(artifact.uri).exists() == (artifact.state == mlmd.Artifact.LIVE), artifact.uri
    assert project.call("gc", "--keep-runs", "1", "--yes").output.startswith("Nothing to remove.")
    assert project.run(*runs[2]).computed() == ["RegistryPush"]
    again = project.run(*runs[0])  # The last run has the same schema, and version 1 the examples.
    assert {*again.outcomes} - {*again.computed()} == {"CuratedSchema", "ExampleGen"}
    assert project.versions()[:3] == [1, 2, 3]


class Made:
    """A workspace by hand: runs of executions, each with one output folder."""

    def __init__(self, root: Path):
        root.mkdir()
        self.root = root
        connection = mlmd.ConnectionConfig()
        connection.sqlite.filename_uri = str(root / "metadata.db")
        self.store = MetadataStore(connection)
        self.types = {
            name: self.store.put_context_type(mlmd.ContextType(name=name))
            for name in ("pipeline", "pipeline_run")
        }
        self.artifact_type = self.store.put_artifact_type(mlmd.ArtifactType(name="Any"))
        (self.pipeline,) = self.store.put_contexts([self._context("pipeline", "p")])

    def _context(self, kind: str, name: str) -> Any:
        return mlmd.Context(type_id=self.types[kind], name=name)

    def run(self, name: str, **states: int) -> list[Path]:
        """Adds a run, and returns the folders of its nodes; those that ended have artifacts."""
        (run,) = self.store.put_contexts([self._context("pipeline_run", name)])
        link = mlmd.ParentContext(child_id=run, parent_id=self.pipeline)
        self.store.put_parent_contexts([link])
        contexts = self.store.get_contexts_by_id([self.pipeline, run])
        return [self._execute(node, state, contexts) for node, state in states.items()]

    def _execute(self, node: str, state: int, contexts: list[Any]) -> Path:
        kind = self.store.put_execution_type(mlmd.ExecutionType(name=f"some.where.{node}"))
        execution = mlmd.Execution(type_id=kind, last_known_state=state)
        number, _, _ = self.store.put_execution(execution, [], contexts)
        folder = self.root / "pipeline_root" / "p" / node / "out" / str(number)
        _put(folder / "file")
        if state == mlmd.Execution.COMPLETE:
            (execution,) = self.store.get_executions_by_id([number])
            artifact = mlmd.Artifact(
                type_id=self.artifact_type, uri=str(folder), state=mlmd.Artifact.LIVE
            )
            event = mlmd.Event(type=mlmd.Event.OUTPUT)
            self.store.put_execution(execution, [(artifact, event)], contexts)
        return folder

    def add_versions(self, *ages: float, model: str = "taxi-development", **manifest: Any) -> Path:
        """Files a version for each age in days, and returns the model's folder."""
        folder = self.root / "registry" / model
        for age in ages:
            filed = datetime.now(UTC) - timedelta(days=age)
            saved_model = _put(self.root.parent / "model" / "saved_model.pb").parent
            said = {"fingerprint": f"{age}", "time": filed.isoformat(), **manifest}
            store.add_version(str(folder), str(saved_model), said)
        return folder

    def gc(self, keep_runs: int = 1, *settings: str) -> int:
        given = [f"workspace={self.root}", *settings]
        return gc.main("development", given, keep_runs, 7, True)


LIMITED = """if True:
    import resource, signal, sys
    from pipeline.cli import app
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    app(["gc", f"--set=workspace={sys.argv[1]}", "--keep-runs=1", "--yes"])
"""
OK, FAILED, RUNNING = mlmd.Execution.COMPLETE, mlmd.Execution.FAILED, mlmd.Execution.RUNNING


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "workspace")


def test_rubbish_goes_and_what_is_young_or_kept_or_not_ours_stays(made: Made) -> None:
    made.run("20260101-000000-000001", Trainer=OK)
    root, trainer = made.root, made.root / "pipeline_root" / "p" / "Trainer"
    made.add_versions(5, run_id="20200101-000000-000003")
    rubbish = [
        _put(root / "checkpoints" / ("a" * 16) / "step-000000100" / "progress.json", 9),
        _put(root / "checkpoints" / f".gc-{'c' * 16}" / "rows-0" / "shard"),
        _put(trainer / "model" / "999" / "half"),
        _put(trainer / "model" / ".gc-998" / "half"),
        _put(trainer / ".system" / "executor_execution" / "999" / ".temp" / "scratch"),
        _put(trainer / ".system" / "stateful_working_dir" / "0-0-0" / "scratch"),
        _put(trainer / ".system" / "driver_execution" / "1000000000000000" / "driver_output.pb"),
        _put(root / "logs" / "small-20200101-000000-1.log", 8),
        _put(root / "reports" / "small-20200101-000000-000001.html", 8),
    ]
    belongings = [
        _put(root / "checkpoints" / ("b" * 16) / "identity.json", 9),
        _put(root / "checkpoints" / ("b" * 16) / "step-000000100" / "progress.json", 6),
        _put(root / "logs" / "small-20200101-000000-2.log", 6),
        _put(root / "reports" / "small-20200101-000000-000002.html", 6),
        _put(root / "reports" / "small-20200101-000000-000003.html", 8),  # of the version's run
        _put(root / "reports" / "benchmark.json", 300),
        _put(root / "pipeline_root" / "another" / "Trainer" / "model" / "1" / "x", 300),
        _put(trainer / "model" / "notes" / "x", 300),
    ]
    made.gc()
    assert [path for path in rubbish if path.exists()] == []
    assert [path for path in belongings if not path.exists()] == []


@pytest.mark.parametrize("last", ["RegistryPush", "Decide"])
def test_bad_days_do_not_drive_out_the_last_good_run(made: Made, last: str) -> None:
    """Nor the last good evaluation of a champion."""
    old = made.run("1", Trainer=OK, **{last: OK})
    good = made.run("2", Trainer=OK, **{last: OK})
    bad = [made.run(str(day), ExampleGen=OK, Gate=FAILED) for day in (3, 4, 5)]
    made.gc(keep_runs=2)
    assert [path.exists() for path in old + good] == [False, False, True, True]
    assert [[path.exists() for path in day] for day in bad] == [
        [False, False],
        [True, False],
        [True, False],
    ]


def test_metadata_that_cannot_be_written_is_told_and_nothing_goes(made: Made) -> None:
    (old,) = made.run("1", Trainer=OK)
    made.run("2", Trainer=OK)
    child = subprocess.run(
        [sys.executable, "-c", LIMITED, str(made.root)], capture_output=True, text=True
    )
    assert child.returncode == 2, child.stderr
    assert "Nothing was removed: the metadata of" in child.stderr
    assert old.exists()


def test_half_an_output_of_a_killed_run_goes_though_the_run_is_kept(made: Made) -> None:
    transform, trainer = made.run("1", Transform=OK, Trainer=RUNNING)
    made.gc()
    assert (transform.exists(), trainer.exists()) == (True, False)


def test_killed_while_removing_nothing_half_is_left_for_a_run_to_find(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = made.run("1", Transform=OK, Trainer=OK, RegistryPush=OK)
    made.run("2", RegistryPush=OK)
    checkpoint = made.root / "checkpoints" / ("a" * 16)
    _put(checkpoint / "progress.json", 9)

    def killed(path: Path) -> None:
        next(path.iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            made.gc()
    assert not checkpoint.exists()
    live = [Path(a.uri) for a in made.store.get_artifacts() if a.state == mlmd.Artifact.LIVE]
    assert not set(live) & set(old)
    assert [path.exists() for path in old] == [True] * 3
    made.gc(keep_runs=2)  # that run is kept, but no cache takes what is marked
    assert [path.exists() for path in old] == [False] * 3
    assert list((made.root / "checkpoints").iterdir()) == []


def test_unreadable_manifest_stops_it_before_anything_goes(made: Made) -> None:
    (old,) = made.run("1", Trainer=OK)
    made.run("2", Trainer=OK)
    _put(made.root / "registry" / "m" / "1" / "manifest.json")
    with pytest.raises(PipelineStop, match="Version 1 of the registry is damaged"):
        made.gc()
    assert old.exists()


def test_without_metadata_the_artifacts_are_left_alone(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    (output,) = made.run("1", Trainer=RUNNING)
    (made.root / "metadata.db").unlink()
    assert made.gc() == 0
    assert "so the artifacts are not looked at" in capsys.readouterr().out
    assert output.exists()
    assert not (made.root / "metadata.db").exists()
    (made.root / "metadata.db").write_text("garbage, longer than a header of SQLite's " * 99)
    with pytest.raises(PipelineStop, match=r"metadata.db cannot be read"):
        made.gc()


def test_what_cannot_be_removed_is_named(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (old,) = made.run("1", Trainer=OK)
    made.run("2", Trainer=OK)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert made.gc() == 1
    output = capsys.readouterr().out
    assert "Freed 0 bytes." in output
    assert f"not removed: {old} (Permission denied)" in output


def _asked(made: Made, answer: str, *arguments: str, meanwhile: Any = bool) -> tuple[int, str]:
    """Runs it on a terminal, and answers its question; the exit code, and what it said."""
    ours, theirs = pty.openpty()
    process = _start(made, *arguments, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    while b"Remove it? [y/N]" not in output:
        output += os.read(ours, 4096)
    meanwhile()
    os.write(ours, f"{answer}\n".encode())
    with contextlib.suppress(OSError):  # how Linux tells a terminal's end
        while part := os.read(ours, 4096):
            output += part
    return process.wait(), output.decode()


@pytest.mark.parametrize(("answer", "left"), [("n", True), ("y", False)])
def test_on_a_terminal_it_asks(made: Made, answer: str, left: bool) -> None:
    (old,) = made.run("1", Trainer=OK)
    made.run("2", Trainer=OK)
    code, output = _asked(made, answer)
    assert (code, old.exists()) == (0, left), output
    assert str(old) in output


def test_waits_for_a_run_that_is_live(made: Made) -> None:
    (old,) = made.run("1", Trainer=OK)
    made.run("2", Trainer=OK)
    with open(made.root / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 4711")
        lock.flush()
        process = _start(made, "--yes", stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert b"waiting for process 4711" in process.stdout.readline()
        assert old.exists()
    process.communicate()
    assert (process.returncode, old.exists()) == (0, False)


def _start(made: Made, *arguments: str, **streams: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "pipeline", "gc", f"--set=workspace={made.root}"]
    command += ["--keep-runs=1", *arguments]
    return subprocess.Popen(command, cwd=loading.PROJECT, **streams)


SHORT = "registry.retention={versions: 2, days: 30}"


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        (["registry.retention={versions: 1, days: 15}"], [2, 5, 6]),
        (["registry.retention={versions: 3, days: 0}"], [2, 4, 5, 6]),
        (["registry.retention=null"], [1, 2, 3, 4, 5, 6]),
        ([], [1, 2, 3, 4, 5, 6]),  # the newest 20
        ([SHORT, "training.warm_start={version: 3}"], [2, 3, 4, 5, 6]),
        ([SHORT, "registry.model=another"], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_old_versions_without_a_label_go(made: Made, settings: list[str], left: list[int]) -> None:
    folder = str(made.add_versions(200, 190, 180, 20, 10, 5))
    labels.assign(folder, "shadow", 2, Mover("ann", "compared by hand"))
    made.gc(1, *settings)
    assert store.list_versions(folder) == left
    assert store.read_labels(folder) == {"shadow": 2}


def test_versions_are_shown_and_counted(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made.add_versions(200, 180, 20, 5)
    made.gc(1, SHORT)
    words = " ".join(capsys.readouterr().out.split())
    assert "unlabelled versions older than 30 days, but for the newest 2 2 " in words
    assert f"{folder}/1 {folder}/2 Kept: the last run of p, and 2 versions" in words
    assert "Freed " in words
    made.gc(1, SHORT)
    assert "Nothing to remove. Kept: the last run of p, and 2 versions" in capsys.readouterr().out


def test_what_only_old_versions_named_goes_after_them(made: Made) -> None:
    named, examples = made.run("1", ExampleGen=OK, Trainer=OK)
    made.run("2", Trainer=OK)
    made.add_versions(200, data=[{"uri": str(named)}])
    made.add_versions(5)
    made.gc(1, "registry.retention.versions=1")
    assert (named.exists(), examples.exists()) == (True, False)
    made.gc()
    assert not named.exists()


def test_a_version_that_gets_a_label_after_it_was_shown_stays(made: Made) -> None:
    folder = str(made.add_versions(200, 190, 180, 5))
    code, output = _asked(
        made,
        "y",
        "--set=registry.retention={versions: 1, days: 30}",
        meanwhile=lambda: labels.promote(folder, 2, Mover("ann", "by hand"), over=None),
    )
    assert code == 1, output
    assert "Version 2 is champion, and stays." in output
    assert store.list_versions(folder) == [2, 4]


def test_killed_while_removing_a_version_it_is_gone_and_swept_by_the_next_push(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made.add_versions(200, 5)

    def killed(path: str, ignore_errors: bool = False) -> None:
        if not ignore_errors:  # that is for what an earlier one left
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            made.gc(1, "registry.retention.versions=1")
    assert store.list_versions(str(folder)) == [2]
    assert list(folder.glob(".tmp-*"))
    made.add_versions(1)
    assert not list(folder.glob(".tmp-*"))
    assert store.list_versions(str(folder)) == [2, 3]


@pytest.mark.parametrize("wrong", ["--keep-runs=0", "--older-than=-1"])
def test_wrong_numbers_are_refused(made: Made, wrong: str) -> None:
    done = CliRunner().invoke(app, ["gc", f"--set=workspace={made.root}", "--yes", wrong])
    assert done.exit_code == 2
    assert "or equal to" in done.output


def test_without_a_workspace_there_is_nothing_to_do_and_none_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gc.main("development", [f"workspace={tmp_path / 'none'}"], 3, 7, True) == 0
    assert "Nothing to remove: there is no" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
