"""What the driver adds to a pod: environment, resources and volumes in Kubernetes' terms."""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from tests.kubeflow.imitation.package import Json

Resolve = Callable[[Json], Any]
"""Resolves a parameter of the platform document."""

_DECIMAL = {"m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}


def environment(container: Json, settings: Json, resolve: Resolve) -> list[Json]:
    """The variables of the executor, then those from secrets and configuration maps."""
    plain = [
        {"name": one["name"], "value": one.get("value", "")} for one in container.get("env", ())
    ]
    secrets = _references(
        settings.get("secretAsEnv", ()), "secretName", "secretKey", "secretKeyRef", resolve
    )
    maps = _references(
        settings.get("configMapAsEnv", ()),
        "configMapName",
        "configMapKey",
        "configMapKeyRef",
        resolve,
    )
    return [*plain, *secrets, *maps]


def _references(
    sources: list[Json], named: str, key: str, reference: str, resolve: Resolve
) -> Iterator[Json]:
    for source in sources:
        name = (
            resolve(source[f"{named}Parameter"]) if f"{named}Parameter" in source else source[named]
        )
        optional = {"optional": source["optional"]} if "optional" in source else {}
        for one in source["keyToEnv"]:
            at = {"name": name, "key": one[key], **optional}
            yield {"name": one["envVar"], "valueFrom": {reference: at}}


def resources(container: Json) -> Json:
    """Limits and requests, quantities as Kubernetes writes them: 0.5 is 500m."""
    stated = container.get("resources", {})
    found: Json = {}
    for kind, suffix in (("limits", "Limit"), ("requests", "Request")):
        amounts = {
            unit: quantity(stated[f"resource{unit.capitalize()}{suffix}"])
            for unit in ("cpu", "memory")
            if f"resource{unit.capitalize()}{suffix}" in stated
        }
        if amounts:
            found[kind] = amounts
    if accelerator := stated.get("accelerator"):
        count = quantity(accelerator["resourceCount"])
        found.setdefault("limits", {})[accelerator["resourceType"]] = count
    return found


def quantity(text: str) -> str:
    """A quantity in its canonical form: the largest unit that leaves a whole number."""
    number, unit = re.fullmatch(r"([0-9.]+)(\w*)", text).groups()  # type: ignore[union-attr]
    if unit in _BINARY:
        units = {name: Decimal(2) ** power for name, power in _BINARY.items()}
        units[""] = Decimal(1)
    else:
        units = {name: Decimal(10) ** power for name, power in _DECIMAL.items()}
    amount = Decimal(number) * units[unit]
    for name, size in sorted(units.items(), key=lambda one: one[1], reverse=True):
        if amount % size == 0:
            return f"{int(amount / size)}{name}"
    raise ValueError(f"{text} is finer than Kubernetes' quantities.")


def volumes(settings: Json, resolve: Resolve) -> tuple[list[Json], list[Json]]:
    """The mounts of the step's container and the pod's volumes."""
    mounts, found = [], []
    for one in settings.get("pvcMount", ()):
        # The second is TFX's, deprecated.
        named = one.get("pvcNameParameter") or {"runtimeValue": {"constant": one.get("constant")}}
        claim = resolve(named)
        below = {"subPath": one["subPath"]} if one.get("subPath") else {}
        mounts.append({"name": claim, "mountPath": one["mountPath"], **below})
        found.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
    for one in settings.get("emptyDirMounts", ()):
        limits = {key: one[key] for key in ("medium", "sizeLimit") if key in one}
        mounts.append({"name": one["volumeName"], "mountPath": one["mountPath"]})
        found.append({"name": one["volumeName"], "emptyDir": limits})
    return mounts, found


def pod_fields(settings: Json, pod_volumes: list[Json]) -> Json:
    """The fields of the pod itself; what the real driver ignores isn't among them."""
    found: Json = {"volumes": pod_volumes} if pod_volumes else {}
    if labels := settings.get("nodeSelector", {}).get("labels"):
        found["nodeSelector"] = labels
    if "tolerations" in settings:
        found["tolerations"] = settings["tolerations"]
    if "activeDeadlineSeconds" in settings:
        found["activeDeadlineSeconds"] = int(settings["activeDeadlineSeconds"])
    return found
