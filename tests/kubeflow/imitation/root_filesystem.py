"""The file system that a pod sees: this machine's, with the pod's volumes at their places.

There is no image. A step sees the folders of the machine in a root of its own (a tmpfs with a bind
mount for each of them), so that volumes can be mounted anywhere and nothing is left behind.
"""

import os
import shlex
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NEVER_READ_ONLY = ("dev", "proc", "sys")


@dataclass
class RootFilesystem:
    """Writes the shell commands that make it.

    Attributes:
        at: An empty folder to make it in.
        volumes: Folders of this machine, by the absolute path at which the pod has them.
        exposed: What a step has to be able to read, even behind a folder that is closed to others
            (`/root` is mode 700) or hidden by a volume (`/tmp`).
        readonly: Whether only the volumes can be written to.
    """

    at: str
    volumes: Mapping[str, Path]
    exposed: Collection[str]
    readonly: bool
    commands: list[str] = field(default_factory=list)

    def script(self) -> str:
        """The commands, for `sh -e` in a new mount namespace."""
        self.commands = [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(self.at)}"]
        self._fill("/", visible=True)
        if self.readonly:
            self.commands.append(f"mount -o remount,bind,ro {shlex.quote(self.at)}")
        return "\n".join(self.commands)

    def _fill(self, folder: str, visible: bool) -> None:
        """Makes the entries of a folder: this machine's, if they are visible, and those wanted."""
        wanted = {path for path in [*self.volumes, *self.exposed] if _is_below(path, folder)}
        here = {os.path.join(folder, name) for name in os.listdir(folder)} if visible else set()
        for path in sorted(here | {_child_on_the_way(folder, path) for path in wanted}):
            # A folder with one of the wanted behind it is made anew, the others are bound whole.
            behind = self.volumes if path in self.exposed else wanted
            beyond = any(_is_below(other, path) for other in behind)
            if path in self.volumes:
                self._bind_volume(path)
            elif beyond:
                self._add("mkdir -p", self.at + path)
            else:
                self._bind(path)
            if beyond:
                shown = visible and path not in self.volumes and _is_open(path)
                self._fill(path, shown or path in self.exposed)

    def _bind_volume(self, path: str) -> None:
        self._add("mkdir -p", self.at + path)
        self._add("mount --bind", str(self.volumes[path]), self.at + path)

    def _bind(self, path: str) -> None:
        target = self.at + path
        if os.path.islink(path):
            self._add("ln -s", os.readlink(path), target)
        else:
            self._add("mkdir -p" if os.path.isdir(path) else "touch", target)
            self._add("mount --rbind", path, target)
            if self.readonly and path.split("/")[1] not in _NEVER_READ_ONLY:
                self._add("mount -o remount,bind,ro", target)

    def _add(self, command: str, *paths: str) -> None:
        self.commands.append(" ".join([command, *map(shlex.quote, paths)]))


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _is_open(folder: str) -> bool:
    return os.path.isdir(folder) and bool(os.stat(folder).st_mode & stat.S_IXOTH)


def _child_on_the_way(folder: str, path: str) -> str:
    return os.path.join(folder, os.path.relpath(path, folder).split("/")[0])
