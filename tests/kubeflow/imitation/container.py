"""A pod's container: a fresh process in a mount namespace of its own, without capabilities."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.kubeflow.imitation.root_filesystem import RootFilesystem

SCRATCH = ("/minio", "/s3", "/gcs", "/.local", "/.cache", "/.config", "/tmp")
"""Volumes of every pod, empty and writable at its start and gone at its end."""

_UNSHARE = ["unshare", "--mount", "--propagation", "private"]
_AS_USER = [*_UNSHARE, "--user", "--map-root-user"]
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """What stands for the image.

    Attributes:
        working_directory: The project's folder, where steps start: `/app` of the real image.
        environment: The image's `ENV`.
        uid: The user, if the administrator set one; root otherwise.
        readonly: Whether a step can write to its volumes only.
    """

    working_directory: Path
    environment: Mapping[str, str]
    uid: int | None = None
    readonly: bool = False

    def full_environment(self) -> dict[str, str]:
        """With what a container has before Kubernetes adds to it; `python` is the tests' own."""
        path = f"{os.path.dirname(sys.executable)}:{_SYSTEM_PATH}"
        home = "/root" if self.uid is None else "/"
        return {"PATH": path, "HOME": home, **self.environment}


class Pod:
    """The volumes of one pod.

    Attributes:
        folder: Where those are that vanish with it.
        volumes: Folders of this machine, by the path at which the step has them.
    """

    def __init__(self, folder: Path, volumes: Mapping[str, Path]) -> None:
        self.folder = folder
        scratch = {path: folder / path.strip("/.") for path in SCRATCH}
        self.volumes = {**scratch, **volumes}
        for made in scratch.values():
            made.mkdir(parents=True)
            made.chmod(0o1777)

    def real(self, path: str) -> Path:
        """The file of this machine behind a path of the pod, behind a last link too."""
        for mounted in sorted(self.volumes, key=len, reverse=True):
            if path == mounted or path.startswith(mounted + "/"):
                found = self.volumes[mounted] / path.removeprefix(mounted).lstrip("/")
                break
        else:
            found = Path(path)
        if found.is_symlink():
            return self.real(os.path.join(os.path.dirname(path), os.readlink(found)))
        return found

    def start(
        self, command: list[str], environment: Mapping[str, str], image: Image, log: Path
    ) -> subprocess.Popen[bytes]:
        """Starts the step and returns once its command runs, in a session of its own.

        Args:
            command: As the launcher has it.
            environment: All of it.
            image: Where and as whom to run.
            log: What it prints goes there.

        Raises:
            RuntimeError: If the machine doesn't allow this; `unavailable` says so beforehand.
        """
        for path in SCRATCH:
            _give(self.volumes[path], image.uid)
        ready, tell = os.pipe()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_unshare(), "sh", "-ec", self._script(image), "step"]
                + [f"{name}={value}" for name, value in environment.items()]
                + command,
                stdin=tell,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        os.close(tell)
        with os.fdopen(ready) as told:
            if not told.read():
                raise RuntimeError(f"The pod's file system was not made: {log.read_text()}")
        return process

    def _script(self, image: Image) -> str:
        at = self.folder / "root"
        at.mkdir()
        directory = str(image.working_directory)
        needed = (directory, sys.prefix, sys.base_prefix)
        exposed = {*needed, *map(os.path.realpath, needed)}
        filesystem = RootFilesystem(str(at), self.volumes, exposed, image.readonly)
        user = "" if image.uid is None else f"--reuid {image.uid} --regid 0 --clear-groups"
        return f"""
            umask 022
            {filesystem.script()}
            echo made >&0
            exec < /dev/null
            exec chroot '{at}' setpriv {user} --bounding-set=-all --inh-caps=-all \\
                --no-new-privs env -i -C '{directory}' "$@"
            """

    def remove(self) -> None:
        """Deletes what vanishes with the pod."""
        shutil.rmtree(self.folder)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a step with all that it started in its session, as the end of a pod does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@cache
def unavailable(uid: int | None = None) -> str | None:
    """Why steps can't run on this machine, if they can't.

    Args:
        uid: The user that they are to run as.
    """
    if uid is not None and os.getuid() != 0:
        return f"To run a step as user {uid}, the tests must run as root."
    tried = subprocess.run(
        [*_unshare(), "sh", "-ec", "mount -t tmpfs tmpfs /mnt"], capture_output=True, text=True
    )
    if tried.returncode == 0:
        return None
    return f"This machine has no mount namespaces for this user: {tried.stderr.strip()}"


def _unshare() -> list[str]:
    return _UNSHARE if os.getuid() == 0 else _AS_USER


def _give(folder: Path, uid: int | None) -> None:
    """What the launcher made belongs to the pod's user, since it is that user."""
    if uid is None:
        return
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            os.chown(os.path.join(parent, name), uid, 0, follow_symlinks=False)
