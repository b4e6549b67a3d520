"""Makes `.venv-tpu`, the environment that trains on a TPU.

TensorFlow's newest build for TPUs is one minor version behind the one that TFX needs, so the two
cannot share an environment. What runs in it is `components.trainer.core` alone. Its packages are
listed, with hashes, in `environment/uv.lock`. Its wheels run with an old C library: it needs none
of what `pipeline.bootstrap` does about that, and uses the interpreter behind `.venv`.

Standard library only.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from components.errors import PipelineStop

PROJECT = Path(__file__).resolve().parents[2]
_SOURCE = Path(__file__).resolve().with_name("environment")
_VENV = PROJECT / ".venv-tpu"
_DEVICES = "/dev/accel*", "/dev/vfio/[0-9]*"
_NOT_OURS = "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT"
_TRIAL = "import keras, tensorflow as tf; assert float(tf.reduce_sum(tf.ones([2, 3]))) == 6"


def python(venv: Path = _VENV) -> str:
    """The interpreter that `make` makes."""
    return str(venv / "bin" / "python3.11")


def variables() -> dict[str, str]:
    """The environment variables for programs that run in it."""
    env = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    env |= {"KERAS_BACKEND": "tensorflow", "PYTHONUNBUFFERED": "1"}
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not has_tpu():
        # The import of TensorFlow would ask Google's metadata server about the TPU, for minutes.
        # On a TPU machine it has to ask.
        env.setdefault("TPU_SKIP_MDS_QUERY", "1")
    return env


def has_tpu() -> bool:
    """Whether this machine seems to have TPU chips (their device files are there)."""
    return any(glob.glob(pattern) for pattern in _DEVICES)


def make(venv: Path = _VENV) -> str:
    """Makes the environment unless it is there as its files say, and returns its interpreter.

    Raises:
      PipelineStop: it can't be made; the message has the reason and what to type.
    """
    wanted = _made_from()
    if _stamp(venv) == wanted:
        return python(venv)
    with _locked(venv):
        if _stamp(venv) != wanted:  # nobody else has made it meanwhile
            _install(venv)
            (venv / "environment.json").write_text(json.dumps(wanted, indent=1))
    return python(venv)


def ready(venv: Path = _VENV) -> str:
    """The interpreter of the environment as its files say.

    Raises:
      PipelineStop: it is not there. A training does not download gigabytes by itself.
    """
    if _stamp(venv) != _made_from():
        raise PipelineStop(
            f"The environment for TPUs, {venv}, is not there, or not as its lock says. Make it "
            "with `make tpu-environment` (2 GB), or set training.strategy=auto."
        )
    return python(venv)


def fingerprint() -> str:
    """Identifies the packages in it."""
    return _made_from()["uv.lock"][:16]


def _made_from() -> dict[str, str]:
    files = [_SOURCE / "pyproject.toml", _SOURCE / "uv.lock"]
    made_from = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return made_from | {"python": os.path.realpath(_host_python())}


def _stamp(venv: Path) -> dict[str, str] | None:
    try:
        stamp: dict[str, str] = json.loads((venv / "environment.json").read_text())
    except (OSError, ValueError):
        return None
    return stamp if os.path.exists(python(venv)) else None


@contextlib.contextmanager
def _locked(venv: Path) -> Iterator[None]:
    """Keeps other makers out."""
    venv.mkdir(parents=True, exist_ok=True)
    with open(venv / "environment.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(venv: Path) -> None:
    """Installs what the lock says, no more and no less.

    From an exported list, not by `uv sync`: that insists on the package index that the lock was
    made with, and this takes the same files, known by their hashes, from the user's own index too.
    """
    (venv / "environment.json").unlink(missing_ok=True)
    uv, listed = _uv(), str(venv / "requirements.txt")
    _run(uv, "venv", "--allow-existing", "--python", _host_python(), str(venv))
    export = ["export", "--frozen", "--no-header", "--project", str(_SOURCE)]
    _run(uv, *export, "--python", python(venv), "--output-file", listed)
    _run(uv, "pip", "sync", "--python", python(venv), "--require-hashes", listed)
    _run(python(venv), "-c", _TRIAL)


def _host_python() -> str:
    """The interpreter behind `.venv`: that one may be a copy that loads a newer C library."""
    return os.path.join(sys.base_prefix, "bin", "python3.11")


def _uv() -> str:
    """The uv that set-up has put into `.venv`, or the machine's own."""
    ours = PROJECT / ".venv" / "bootstrap" / "bin" / "uv"
    found = str(ours) if ours.exists() else shutil.which("uv")
    if not found:
        raise PipelineStop(
            "The TPU environment is made with uv, which is not in .venv. Type `make setup`."
        )
    return found


def _run(*command: str) -> None:
    """Runs a program without a word."""
    env = variables() | {"UV_PYTHON_DOWNLOADS": "never"}
    if index := _pip_index():
        env.setdefault("UV_DEFAULT_INDEX", index)
    done = subprocess.run(
        command, cwd=PROJECT, env=env, text=True, capture_output=True, check=False
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise PipelineStop(
            f"The TPU environment could not be made: `{' '.join(command)}` failed.\n"
            + "\n".join(f"  {line}" for line in lines[-8:])
            + "\nPut that right and type the same again. Without a TPU, set training.strategy=auto."
        )


def _pip_index() -> str:
    """The package index of the user's pip settings, "" when they name none."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    asked = subprocess.run(command, text=True, capture_output=True, check=False)
    return os.environ.get("PIP_INDEX_URL", asked.stdout.strip())
