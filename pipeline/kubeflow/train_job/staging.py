"""Inputs and outputs on the workspace volume, where the workers see them too.

KFP downloads inputs to the disk of the step's own pod, and uploads from there. In between, both
lie in a folder of the workspace; the executor input that the workers get has plain paths there.
"""

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.kubeflow.package import Document, write
from pipeline.kubeflow.step import paths

STEP, INPUT, OUTPUT, HEARTBEAT = "step.json", "input.json", "output.json", "heartbeat"


def stage(folder: Path, step: Document, executor_input: Document) -> None:
    """Makes the folder, whole or not at all, in place of what a lost attempt left.

    Args:
      folder: to be made.
      step: what the compiler wrote, without `train_job`: the workers run an ordinary step.
      executor_input: KFP's.
    """
    remove(folder)
    temporary = _temporary(folder)
    (temporary / "outputs").mkdir(parents=True)
    staged = copy.deepcopy(executor_input)
    for place, artifact in _artifacts(staged["inputs"]):
        source = Path(paths.local(artifact["uri"]))
        if source.exists():
            shutil.copytree(source, temporary / "inputs" / place)
        artifact["uri"] = str(folder / "inputs" / place)
    for place, artifact in _artifacts(staged["outputs"]):
        artifact["uri"] = str(folder / "outputs" / place)
    staged["outputs"]["outputFile"] = str(folder / OUTPUT)
    (temporary / STEP).write_text(json.dumps(step))
    (temporary / INPUT).write_text(json.dumps(staged))
    os.rename(temporary, folder)


def fetch(folder: Path, executor_input: Document) -> None:
    """Puts what the workers made where KFP's launcher looks for it, with its real URIs."""
    output = json.loads((folder / OUTPUT).read_text())
    made = dict(_artifacts(output))
    for place, real in _artifacts(executor_input["outputs"]):
        if place in made:
            shutil.copytree(made[place]["uri"], paths.local(real["uri"]), dirs_exist_ok=True)
            made[place]["uri"] = real["uri"]
    write(Path(paths.local(executor_input["outputs"]["outputFile"])), json.dumps(output))


def remove(folder: Path) -> None:
    """Removes the folder, and what was left of making it."""
    shutil.rmtree(_temporary(folder), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}")


def _artifacts(given: Document) -> Iterator[tuple[str, Any]]:
    """The artifacts of inputs or outputs, each with its place: `model/0`."""
    for name, found in given.get("artifacts", {}).items():
        for number, artifact in enumerate(found["artifacts"]):
            yield f"{name}/{number}", artifact
