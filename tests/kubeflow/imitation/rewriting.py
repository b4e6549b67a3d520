"""What happens to texts on their way into a pod: Argo's tags, then Kubernetes' variables."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict

from tests.kubeflow.imitation.package import Package


def through_argo(package: Package, workflow: Mapping[str, str]) -> Package:
    """Replaces Argo's tags everywhere in a package, `{{workflow.name}}` in a constant too.

    Args:
        package: As compiled.
        workflow: `name`, `namespace` and `uid`.
    """
    return Package(**json.loads(argo(json.dumps(asdict(package)), workflow)))


def argo(text: str, workflow: Mapping[str, str]) -> str:
    """Replaces the tags that Argo knows; it leaves others, KFP's own among them."""
    return re.sub(
        r"\{\{\s*workflow\.(\w+)\s*\}\}",
        lambda tag: workflow.get(tag[1], tag[0]),
        text,
    )


def kubernetes(text: str, environment: Mapping[str, str]) -> str:
    """`$$` becomes `$`, and `$(NAME)` the variable, if there is one of that name."""
    return re.sub(
        r"\$\$|\$\(([^)]*)\)",
        lambda found: "$" if found[0] == "$$" else environment.get(found[1], found[0]),
        text,
    )
