"""`.venv-tpu`, the environment that trains on a TPU: made by uv from `environment/uv.lock`.

TensorFlow's newest build for TPUs is one minor version behind the one that TFX needs, so the two
cannot share an environment. What runs in it is `components.trainer.core` alone.
"""

import glob
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from components.errors import PipelineStop

PROJECT = Path(__file__).resolve().parents[2]
VENV = PROJECT / ".venv-tpu"
_SOURCE = Path(__file__).resolve().with_name("environment")
_LOCK = "uv.lock"
_DEVICES = "/dev/accel*", "/dev/vfio/[0-9]*"
_NOT_OURS = "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT"


def make() -> None:
    """Installs what the lock says, no more and no less.

    Raises:
      PipelineStop: uv is not there, or fails; it has said why.
    """
    ours = Path(sys.prefix) / "bootstrap" / "bin" / "uv"
    uv = str(ours) if ours.exists() else shutil.which("uv")
    if not uv:
        raise PipelineStop("The TPU environment is made with uv. Type `make setup`, which has it.")
    # The interpreter behind `.venv`: that one may be a copy that loads a newer C library.
    python = os.path.join(sys.base_prefix, "bin", "python3.11")
    command = [uv, "sync", "--frozen", "--project", str(_SOURCE), "--python", python]
    env = variables() | {"UV_PROJECT_ENVIRONMENT": str(VENV)}
    if subprocess.run(command, env=env, check=False).returncode:
        raise PipelineStop(
            "The TPU environment could not be made; uv says why above. Put that right and type the "
            "same again. Without a TPU, set training.strategy=auto."
        )
    shutil.copy(_SOURCE / _LOCK, VENV / _LOCK)


def ready() -> str:
    """The interpreter of the environment.

    Raises:
      PipelineStop: it is not there as its lock says. A training does not download gigabytes itself.
    """
    made = VENV / _LOCK
    if not made.exists() or made.read_bytes() != (_SOURCE / _LOCK).read_bytes():
        raise PipelineStop(
            f"The environment for TPUs, {VENV}, is not there, or not as its lock says. Make it "
            "with `make tpu-environment` (2 GB), or set training.strategy=auto."
        )
    return str(VENV / "bin" / "python3.11")


def fingerprint() -> str:
    """Identifies the packages in it."""
    return hashlib.sha256((_SOURCE / _LOCK).read_bytes()).hexdigest()[:16]


def variables() -> dict[str, str]:
    """The environment variables for programs that run in it."""
    env = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    env |= {"KERAS_BACKEND": "tensorflow", "PYTHONUNBUFFERED": "1"}
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not any(glob.glob(pattern) for pattern in _DEVICES):
        # The import of TensorFlow would ask Google's metadata server about the TPU, for minutes.
        # On a TPU machine it has to ask.
        env.setdefault("TPU_SKIP_MDS_QUERY", "1")
    return env
