"""A run's folders: what cannot be used is told before anything starts, and nothing is left."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from components.errors import PipelineStop
from pipeline.workspace import Workspace
from tests import small
from tests.end_to_end.project import Project


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "workspace")
    made.make()
    with sqlite3.connect(made.metadata) as database:
        database.execute("CREATE TABLE Artifact (id INTEGER, uri TEXT)")
        database.executemany(
            "INSERT INTO Artifact VALUES (?, ?)", [(i, "x" * 99) for i in range(999)]
        )
    database.close()
    made.check_metadata()
    return made


def test_metadata_that_is_cut_off_or_garbage_is_told(workspace: Workspace) -> None:
    whole = workspace.metadata.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no database" * 1000):
        workspace.metadata.write_bytes(damaged)
        with pytest.raises(
            PipelineStop, match=r"metadata\.db, which knows what is cached, is damaged"
        ):
            workspace.check_metadata()


def test_metadata_that_another_holds_is_told(workspace: Workspace) -> None:
    holder = sqlite3.connect(workspace.metadata)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(PipelineStop, match="Another program holds"):
        workspace.check_metadata()
    holder.close()


def test_a_run_on_a_damaged_store_ends_with_a_sentence(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", rows=100)
    (project.folder / "workspace").mkdir()
    (project.folder / "workspace" / "metadata.db").write_bytes(b"no database" * 1000)
    done = project.run()
    assert done.code == 2
    assert "is damaged (file is not a database)" in done.output
    assert "Traceback" not in done.output


def test_a_full_disk_is_told_at_the_start(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    project = Project(tmp_path / "project", rows=100)
    (project.folder / "workspace").mkdir()
    command = [sys.executable, "-m", "pipeline", "run", "--config", "small"]
    done = subprocess.run(
        [
            "unshare",
            "-rm",
            "sh",
            "-c",
            'mount -t tmpfs -o size=64k none workspace && "$@"',
            "sh",
            *command,
        ],
        cwd=project.folder,
        env=small.environment_of_a_copy(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "The disk of the workspace" in done.stderr
    assert "is full: 0 MiB are free" in done.stderr
    assert "Traceback" not in done.stderr


def test_temporary_files_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    code = """
import sys, tempfile, time
from pathlib import Path
from pipeline.workspace import Workspace
with Workspace(Path(sys.argv[1])).temporary_files():
    tempfile.mkdtemp(prefix="left")
    print(tempfile.gettempdir(), flush=True)
    time.sleep(60)
"""
    root = tmp_path / "workspace"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    assert list(folder.glob("left*"))
    process.kill()
    process.wait()
    assert folder.exists()
    before = tempfile.gettempdir()
    with Workspace(root).temporary_files():
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)
        assert not list(folder.iterdir())
    assert not folder.exists()
    assert tempfile.gettempdir() == before
