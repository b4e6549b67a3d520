"""Object stores as folders, and the launcher's way of copying to and from them."""

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

LOCAL = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}
"""Where a pod has what a store has."""


class StoreError(Exception):
    """A copy that fails, and the step with it."""


def local_path(uri: str) -> str | None:
    """Where in a pod an artifact lies; None for what isn't in an object store."""
    for scheme, folder in LOCAL.items():
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    return None


class ObjectStore:
    """Objects as files. Like the real ones, it has no folders: an empty one doesn't survive."""

    def __init__(self, root: Path, schemes: Collection[str]) -> None:
        """Opens or makes one.

        Args:
            root: The folder.
            schemes: Those that the installation has credentials for.
        """
        self._root = root
        self._schemes = schemes

    def path(self, uri: str) -> Path:
        """The file of an object, or the folder of all those whose keys begin so."""
        scheme, _, key = uri.partition("://")
        return self._root / scheme / key.strip("/")

    def upload(self, local: str, uri: str, real: Callable[[str], Path]) -> None:
        """Copies a file or what is in a folder; links to files become files.

        Args:
            local: The path in the pod.
            uri: The object, or what all objects' keys begin with.
            real: The file behind a pod's path.

        Raises:
            FileNotFoundError: If nothing is there.
            StoreError: For a link to a folder inside a folder, or a store without credentials.
        """
        self._check(uri)
        source = real(local)
        if not source.is_dir():
            _copy(source, self.path(uri), local, uri)
            return
        for entry in sorted(os.scandir(source), key=lambda found: found.name):
            inside, below = f"{local}/{entry.name}", f"{uri}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                self.upload(inside, below, real)
            else:
                _copy(real(inside), self.path(below), inside, below)

    def download(self, uri: str, target: Path) -> None:
        """Copies an object, or all whose keys begin so; nothing at all isn't an error.

        Raises:
            StoreError: For a store without credentials.
        """
        self._check(uri)
        source = self.path(uri)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def _check(self, uri: str) -> None:
        if uri.partition("://")[0] not in self._schemes:
            raise StoreError(f"no credentials for {uri}: kfp-launcher has no provider for it")


def _copy(source: Path, target: Path, local: str, uri: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except IsADirectoryError as error:
        raise StoreError(
            f'uploadFile(): unable to complete copying "{local}" to remote storage "{uri}": '
            f"read {local}: is a directory"
        ) from error
