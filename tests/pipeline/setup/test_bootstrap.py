"""Set-up as it is met: the script in a repository of its own, started by the host's Python."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.setup import bootstrap

PYTHON = bootstrap.host_python()
UNREACHABLE = "http://127.0.0.1:9"
OFFLINE = {
    **{name: UNREACHABLE for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")},
    "PIP_INDEX_URL": UNREACHABLE,
    "PIP_NO_CACHE_DIR": "1",
    "PIP_RETRIES": "0",
}
FINISH = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pipeline.setup import bootstrap;"
    "bootstrap.write_stamp(bootstrap.fingerprint())"
)


def copy_repository(to):
    for name in (*bootstrap.MADE_FROM, "pipeline/__init__.py", "pipeline/setup/__init__.py"):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(bootstrap.REPO) / name, to / name)
    return to


def start(repo, **environment):
    return subprocess.Popen(
        [PYTHON, "-I", str(repo / "pipeline" / "setup" / "bootstrap.py")],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        # A test run in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def set_up(repo, **environment):
    process = start(repo, **environment)
    output, _ = process.communicate()
    return process.returncode, output


def finish(repo):
    """Puts the stamp there that a finished set-up leaves."""
    (repo / ".venv" / "bin").mkdir(parents=True)
    (repo / ".venv" / "bin" / "python3.11").touch()
    subprocess.run([PYTHON, "-I", "-c", FINISH, str(repo)], check=True)


@pytest.fixture
def repo(tmp_path):
    return copy_repository(tmp_path / "a repository")


@pytest.fixture
def finished(repo):
    finish(repo)
    return repo


@pytest.fixture
def bare_machine(tmp_path):
    """Has no network and not one program: whatever there is to do fails, and at once."""
    (tmp_path / "no programs").mkdir()
    return {**OFFLINE, "PATH": str(tmp_path / "no programs"), "CXX": ""}


def test_finished_environment_needs_no_network_no_program_and_no_second(finished, bare_machine):
    started = time.monotonic()
    assert set_up(finished, **bare_machine) == (0, "")
    assert time.monotonic() - started < 1


def test_machine_without_compiler_is_told_what_to_type_and_nothing_is_made(repo, bare_machine):
    code, output = set_up(repo, **bare_machine)
    assert code == 1
    assert "C++ compiler is missing" in output
    assert "make docker-run-local" in output
    assert "Traceback" not in output
    assert not (repo / ".venv").exists()


@pytest.mark.parametrize("stamp", ["{", "[]"])
def test_torn_stamp_is_not_trusted(finished, bare_machine, stamp):
    (finished / ".venv" / "bootstrap.stamp").write_text(stamp)
    assert set_up(finished, **bare_machine)[0] == 1


@pytest.mark.parametrize("name", bootstrap.MADE_FROM)
def test_changed_file_is_noticed(finished, bare_machine, name):
    with (finished / name).open("a") as file:
        file.write("\n")
    assert set_up(finished, **bare_machine)[0] == 1


def test_moved_repository_is_noticed(finished, bare_machine):
    moved = finished.rename(finished.parent / "elsewhere")
    assert set_up(moved, **bare_machine)[0] == 1


def test_other_interpreter_is_noticed(finished, bare_machine):
    stamp = finished / ".venv" / "bootstrap.stamp"
    made_from = json.loads(stamp.read_text())
    stamp.write_text(json.dumps({**made_from, "the Python version": "3.11.0"}))
    assert set_up(finished, **bare_machine)[0] == 1


def test_linked_environment_of_another_project_is_left_alone(finished, tmp_path):
    other = copy_repository(tmp_path / "another repository")
    (other / ".venv").symlink_to(finished / ".venv")
    code, output = set_up(other)
    assert code == 1
    assert ".venv is a link" in output and "rm .venv" in output
    assert (finished / ".venv" / "bin" / "python3.11").exists()


def test_half_made_it_is_made_again_and_a_failed_step_says_why_where_and_what_to_type(repo):
    (repo / ".venv" / "bin").mkdir(parents=True)
    (repo / ".venv" / "left over").touch()
    code, output = set_up(repo, **OFFLINE)
    assert code == 1
    assert "never finished" in output
    assert not (repo / ".venv" / "left over").exists()
    assert "Fetching uv failed: ERROR: " in output
    assert str(repo / ".venv" / "bootstrap.log") in output
    assert "make docker-run-local" in output
    assert "Traceback" not in output
    assert not (repo / ".venv" / "bootstrap.stamp").exists()


def wait_for_lock(repo):
    """Starts a set-up while another one, this test, is at work; returns both."""
    (repo / ".venv").mkdir(exist_ok=True)
    lock = (repo / ".venv" / "bootstrap.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    second = start(repo, **OFFLINE)
    assert "waiting" in second.stdout.readline()
    return lock, second


def test_second_set_up_waits_for_the_first_and_uses_what_it_made(repo):
    lock, second = wait_for_lock(repo)
    finish(repo)
    time.sleep(0.5)
    assert second.poll() is None
    lock.close()
    assert second.communicate(timeout=10)[0] == ""
    assert second.returncode == 0


def test_interrupted_by_hand_it_says_so(repo):
    lock, waiting = wait_for_lock(repo)
    waiting.send_signal(signal.SIGINT)
    output = waiting.communicate(timeout=10)[0]
    lock.close()
    assert waiting.returncode == 130
    assert "type the same again" in output
    assert "Traceback" not in output


def installed(repo):
    return len(list(repo.glob(".venv/lib/python3.11/site-packages/*.dist-info")))


@pytest.mark.prove
def test_killed_half_way_it_is_made_again_and_works(repo):
    killed = start(repo)
    while installed(repo) < 20 and killed.poll() is None:
        time.sleep(0.05)
    killed.kill()  # this one alone: what it started goes on for a while
    killed.communicate()
    assert not (repo / ".venv" / "bootstrap.stamp").exists()

    code, output = set_up(repo)
    assert code == 0, output
    assert "never finished" in output

    started = time.monotonic()
    assert set_up(repo, **OFFLINE) == (0, "")
    assert time.monotonic() - started < 1
    shutil.rmtree(repo / ".venv")  # several gigabytes
