"""The KServe InferenceService that runs this server on a Kubernetes cluster, from the image.

The workspace is mounted, not downloaded by KServe's `storageUri`: that copies a model once, when a
pod starts, and this server follows the registry's labels while it runs. Deployment mode is
Standard (KServe's name for a plain Deployment): Knative by default mounts no volume claims, and
lets a container have one port.
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from components.serving.settings import GRACE_SECONDS

HTTP_PORT, GRPC_PORT = 8080, 8081
WORKSPACE = "/app/workspace"
_USER = 1000
"""Any: the image runs as every user id. Files in the volume get this group."""
_DRAIN_SECONDS = 5
"""A pod that ends still gets requests until every router has heard of it."""


def make(model: str, image: str, claim: str, config: str, overrides: Sequence[str] = ()) -> str:
    """Makes the manifest.

    Args:
        model: The model's name in the registry.
        image: The project's image.
        claim: The PersistentVolumeClaim that holds the workspace.
        config: The configuration, without its ending.
        overrides: Of its settings, NAME=VALUE.

    Returns:
        YAML for `kubectl apply`.
    """
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": re.sub("[^a-z0-9]+", "-", model.lower()).strip("-"),
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "terminationGracePeriodSeconds": _DRAIN_SECONDS + GRACE_SECONDS + 5,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": _USER,
                    "fsGroup": _USER,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [_container(image, config, overrides)],
                "volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": claim}}],
            }
        },
    }
    text: str = yaml.safe_dump(service, sort_keys=False)
    return text


def _container(image: str, config: str, overrides: Sequence[str]) -> dict[str, Any]:
    listen = {"host": "0.0.0.0", "http_port": HTTP_PORT, "grpc_port": GRPC_PORT}
    settings = [*overrides, *(f"serving.{name}={value}" for name, value in listen.items())]
    return {
        "name": "kserve-container",
        "image": image,
        "command": ["python", "-m", "pipeline"],
        "args": ["serve", f"--config={config}", *(f"--set={setting}" for setting in settings)],
        "ports": [
            {"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
        ],
        # It listens when the model is loaded; until then nothing answers.
        "startupProbe": {**_probe("/v2/health/live"), "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**_probe("/v2/health/ready"), "periodSeconds": 5},
        "livenessProbe": {**_probe("/v2/health/live"), "periodSeconds": 10},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_DRAIN_SECONDS)]}}},
        "resources": {
            "requests": {"cpu": "500m", "memory": "1536Mi"},
            "limits": {"memory": "3Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "workspace", "mountPath": WORKSPACE}],
    }


def _probe(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": HTTP_PORT}, "timeoutSeconds": 5}
