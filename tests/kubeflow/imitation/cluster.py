"""The cluster: what lasts longer than a pod."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.kubeflow.imitation.container import Image, Pod, end
from tests.kubeflow.imitation.driver import PodPatch
from tests.kubeflow.imitation.metadata import MetadataStore
from tests.kubeflow.imitation.package import Json
from tests.kubeflow.imitation.store import ObjectStore


class PodError(Exception):
    """The pod doesn't start: it names something that the cluster doesn't have."""


@dataclass
class RunningStep:
    """A step whose process has just started.

    Attributes:
        task: The task's name.
        attempt: 0, or which retry it is.
        process: The step. It leads a session, with all that it starts.
        pod: Its volumes.
        log: Where its output is written to.
        lost: Whether `lose_pod` was called.
    """

    task: str
    attempt: int
    process: subprocess.Popen[bytes]
    pod: Pod
    log: Path
    lost: bool = False

    def kill(self) -> None:
        """Kills the step's processes, as running out of memory does; the pod stays."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def lose_pod(self) -> None:
        """Takes the node away: step and launcher end at once, and nothing is uploaded."""
        self.lost = True
        end(self.process)


@dataclass
class Cluster:
    """What pods are made of and what they leave.

    Attributes:
        root: The folder of everything here.
        image: What stands for the image of every step.
        store: The object stores.
        metadata: ML Metadata.
        secrets: Values by key, by the secret's name.
        config_maps: Likewise.
        on_start: Called when a step's process has started; it may kill it, from a thread as well.
    """

    root: Path
    image: Image
    store: ObjectStore
    metadata: MetadataStore
    secrets: Mapping[str, Mapping[str, str]]
    config_maps: Mapping[str, Mapping[str, str]]
    on_start: Callable[[RunningStep], None]

    def claim(self, name: str) -> Path:
        """The folder of a persistent volume claim."""
        return self.root / "claims" / name

    def make_pod(self, name: str, patch: PodPatch) -> Pod:
        """Makes a pod with its volumes.

        Raises:
            PodError: If there is no claim of a name.
        """
        folder = self.root / "pods" / name
        folder.mkdir(parents=True)
        sources = {volume["name"]: volume for volume in patch.pod.get("volumes", ())}
        volumes = {}
        for mount in patch.volume_mounts:
            source = folder / f"volume-{mount['name']}"
            if "persistentVolumeClaim" in sources[mount["name"]]:
                source = self.claim(mount["name"])
                if not source.is_dir():
                    raise PodError(f'persistentvolumeclaim "{mount["name"]}" not found')
            source /= mount.get("subPath", "")
            source.mkdir(parents=True, exist_ok=True)
            # As with an fsGroup: a user that is set may write there.
            source.chmod(0o777)
            volumes[mount["mountPath"]] = source
        return Pod(folder, volumes)

    def variable(self, stated: Json) -> str | None:
        """The value of an environment variable; None for one that is optional and isn't there.

        Raises:
            PodError: If its secret, its map or the key in it doesn't exist.
        """
        if "valueFrom" not in stated:
            return str(stated["value"])
        (kind, reference), *_ = stated["valueFrom"].items()
        known = self.secrets if kind == "secretKeyRef" else self.config_maps
        value = known.get(reference["name"], {}).get(reference["key"])
        if value is None and not reference.get("optional"):
            raise PodError(f"{kind}: no {reference['key']} in {reference['name']}")
        return value
