"""The project's programs in processes that have the libraries already: each start saves an import.

A process is forked from one that has imported TensorFlow and TFX and nothing of the project, so
that it takes the code of the folder that it is started in; signals, files and the exit code are
those of any process.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.libraries"])


def run(
    folder: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    module: str = "pipeline",
) -> tuple[int, str]:
    """Runs `python -m MODULE ARGUMENTS` in a folder to its end: exit code and output."""
    with tempfile.NamedTemporaryFile("r", prefix="output-") as output:
        process = start(module, folder, arguments, environment, output.name)
        process.join()
        assert process.exitcode is not None
        return process.exitcode, output.read()


def start(
    module: str,
    folder: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: str,
) -> BaseProcess:
    """Starts `python -m MODULE ARGUMENTS` in a folder; what it prints is appended to `output`."""
    given = (module, str(folder), [*arguments], dict(environment), output)
    process = _FORKS.Process(target=_run, args=given)
    process.start()
    return process


def _run(
    module: str, folder: str, arguments: list[str], environment: dict[str, str], output: str
) -> None:
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, output, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:] = [folder, *(path for path in sys.path if path and Path(path) != _ROOT)]
    ours = ("tests", "pipeline", "components", "benchmarks")  # of whoever forked here first
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [f"python -m {module}", *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
