"""The Docker-compatible engine of this machine: reaching it, and what it calls our images."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import docker  # type: ignore[import-untyped]
from docker.errors import DockerException, NotFound  # type: ignore[import-untyped]

from components.errors import PipelineStop

_SOCKET = "unix:///var/run/docker.sock"


@contextmanager
def connected() -> Iterator[Any]:
    """Yields a `docker.DockerClient` for DOCKER_HOST, Docker's context or its usual socket.

    Raises:
      PipelineStop: there is no engine, or it does not answer.
    """
    try:
        client = docker.from_env()
    except DockerException as error:
        raise PipelineStop(_unreachable(error)) from error
    try:
        yield client
    finally:
        client.close()


def _unreachable(error: BaseException) -> str:
    while error.__context__:
        error = error.__context__
    why = getattr(error, "strerror", None) or " ".join(str(error).split())
    address = os.environ.get("DOCKER_HOST")
    if not address and not shutil.which("docker") and not shutil.which("podman"):
        return (
            "There is no container engine here, neither docker nor podman: install one "
            "(https://docs.docker.com/engine/install), or let a cluster run the package "
            "(make submit)."
        )
    return (
        f"No container engine answers at {address or _SOCKET} ({why}): "
        "start it, or set DOCKER_HOST to where it is (Podman: `systemctl --user start "
        "podman.socket` and DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock)."
    )


def names_of_images(client: Any, images: Iterable[str]) -> dict[str, str]:
    """What the engine calls each of these images: Podman puts `localhost/` before some.

    Args:
      client: of the engine.
      images: as a package has them.

    Raises:
      PipelineStop: lists those that the engine does not have.
    """
    found, missing = {}, []
    for image in sorted(set(images)):
        try:
            tags = client.images.get(image).tags
        except NotFound:
            missing.append(image)
        else:
            found[image] = image if not tags or image in tags else tags[0]
    if missing:
        raise PipelineStop(
            f"The container engine has no image {' and no image '.join(missing)}: build it with "
            "`make image` (with the same IMAGE=, if you give one), or pull it."
        )
    return found


def caller(client: Any) -> str:
    """The `user:group` of a container whose files are to belong to whoever calls this.

    An engine without root maps its containers' root to the caller.
    """
    is_rootless = "name=rootless" in client.info().get("SecurityOptions", ())
    return "0:0" if is_rootless else f"{os.getuid()}:{os.getgid()}"
