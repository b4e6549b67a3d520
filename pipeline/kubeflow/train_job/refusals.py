"""What the cluster's API answers instead of doing it, for a person."""

import contextlib
import json
from typing import Any

from kubernetes.client import ApiException

from components.errors import PipelineStop

_BUSY = 429


class NotThere(Exception):
    """There is no object of this name."""


class AlreadyThere(Exception):
    """There is an object of this name."""


def is_passing(fault: Exception) -> bool:
    """Whether a request that failed may succeed later: no answer, or the server's own troubles."""
    if isinstance(fault, ApiException):
        return bool(fault.status == _BUSY or fault.status >= 500)
    return True


def is_forbidden(fault: Exception) -> bool:
    """Whether the service account lacks the right."""
    return isinstance(fault, ApiException) and fault.status in (401, 403)


def refusal(error: ApiException, apply: str) -> Exception:
    """The exception for an answer that stays.

    Args:
      error: the answer.
      apply: the sentence that says how the manifests are applied.
    """
    status = _status(error)
    text = str(status.get("message") or error.body or error.reason).strip()
    if error.status == 409:
        return AlreadyThere(text)
    if error.status == 404 and status.get("details", {}).get("name"):
        return NotThere(text)
    if error.status == 404:
        return PipelineStop(
            "The cluster has no Kubeflow Trainer v2, which runs the workers of a Trainer step "
            "(training.strategy=multi_worker). Have it installed: "
            "https://trainer.kubeflow.org/en/latest/operator-guides/installation.html, "
            f"or set training.strategy=auto. ({text})"
        )
    if is_forbidden(error) and "admission webhook" not in text:
        return PipelineStop(f"The step's service account may not do this: {text}. {apply}")
    return PipelineStop(f"The cluster refuses the Trainer's workers: {text}")


def _status(error: ApiException) -> dict[str, Any]:
    """The answer's Status object; empty if it is none."""
    with contextlib.suppress(ValueError):
        found = json.loads(error.body or "")
        if isinstance(found, dict):
            return found
    return {}
