"""KFP's cache: what a task's outputs depend on, as KFP sees it."""

import hashlib
import json

from tests.kubeflow.imitation.driver import Outcome, PodPatch
from tests.kubeflow.imitation.package import Json


class Cache:
    """The outputs of every finished task that allowed it, of failed runs too."""

    def __init__(self) -> None:
        self._known: dict[str, Outcome] = {}

    def find(self, key: str) -> Outcome | None:
        """The outputs of the newest task with this key."""
        return self._known.get(key)

    def add(self, key: str, outcome: Outcome) -> None:
        """Remembers a task's outputs."""
        self._known[key] = outcome


def fingerprint(pipeline: str, container: Json, patch: PodPatch) -> str:
    """The key of a task: inputs with the artifacts' ids, outputs without URIs, and the container.

    Of the pod, only its volume claims count. Where an input lies, what it has in its metadata, the
    environment and the resources don't.
    """
    inputs, outputs = patch.executor_input["inputs"], patch.executor_input["outputs"]
    key = {
        "pipeline": pipeline,
        "artifacts": {
            name: [artifact["name"] for artifact in found["artifacts"]]
            for name, found in inputs.get("artifacts", {}).items()
        },
        "parameters": inputs.get("parameterValues", {}),
        "output_artifacts": {
            name: [{**artifact, "uri": ""} for artifact in found["artifacts"]]
            for name, found in outputs["artifacts"].items()
        },
        "output_parameters": patch.component_spec.get("outputDefinitions", {}).get("parameters"),
        "image": container.get("image"),
        "command": [*container.get("command", ()), *container.get("args", ())],
        "claims": sorted(
            volume["name"]
            for volume in patch.pod.get("volumes", ())
            if "persistentVolumeClaim" in volume
        ),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
