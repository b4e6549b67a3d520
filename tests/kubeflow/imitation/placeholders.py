"""KFP's placeholders in commands: some are the driver's, the others the launcher's."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.kubeflow.imitation.package import Json
from tests.kubeflow.imitation.store import local_path

_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}")


def by_driver(command: list[str], executor_input: Json) -> list[str]:
    """Fills input parameters in, but not in arguments with an output.

    Raises:
        KeyError: For a parameter that the step doesn't get; it fails the driver.
    """
    if optional := [part for part in command if part.startswith('{"IfPresent"')]:
        raise NotImplementedError(f"The imitation has no optional arguments: {optional}.")
    values = executor_input["inputs"].get("parameterValues", {})
    return [
        part
        if "$.outputs" in part
        else _PARAMETER.sub(lambda found: as_text(values[found[1]]), part)
        for part in command
    ]


def by_launcher(command: list[str], executor_input: Json) -> list[str]:
    """Fills in the rest, in the program's name only `{{$}}`, the whole executor input."""
    whole = json.dumps(executor_input)
    filled = [part.replace("{{$}}", whole) for part in command]
    for placeholder, value in _values(executor_input):
        filled[1:] = [part.replace(placeholder, value) for part in filled[1:]]
    return filled


def _values(executor_input: Json) -> Iterator[tuple[str, str]]:
    inputs, outputs = executor_input["inputs"], executor_input["outputs"]
    for side, found in (("inputs", inputs), ("outputs", outputs)):
        for name, artifacts in found.get("artifacts", {}).items():
            uri = artifacts["artifacts"][0]["uri"]
            yield f"{{{{$.{side}.artifacts['{name}'].uri}}}}", uri
            if path := local_path(uri):
                yield f"{{{{$.{side}.artifacts['{name}'].path}}}}", path
    for name, value in inputs.get("parameterValues", {}).items():
        yield f"{{{{$.inputs.parameters['{name}']}}}}", as_text(value)
    for name, output in outputs.get("parameters", {}).items():
        yield f"{{{{$.outputs.parameters['{name}'].output_file}}}}", output["outputFile"]


def as_text(value: Any) -> str:
    """A parameter's value in a command."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
