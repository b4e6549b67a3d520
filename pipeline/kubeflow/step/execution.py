"""A TFX executor between KFP's executor input and its output metadata."""

import importlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from components.errors import PipelineStop
from pipeline.fingerprint import code_fingerprint
from pipeline.kubeflow import tfx_internals
from pipeline.kubeflow.step import artifacts, paths
from pipeline.loading import PROJECT

Step = dict[str, Any]
"""What the compiler wrote: `component` (its name), `executor` (a class), `inputs` and `outputs`
(artifact types by name), `optional` (names of inputs), `messages` (classes of the properties that
are protocol buffers, by name), `beam` (flags), `code` (fingerprints)."""


def prepare(step: Step) -> Any:
    """Imports the executor's class, and no component beside it.

    Raises:
      PipelineStop: the image's code is not what the package was compiled from.
    """
    _check_code(step["code"])
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])
    )
    if "train_job" in step:
        return None  # its workers import it
    tfx_internals.import_no_more_than_needed()
    return _class(step["executor"])


def _class(full_name: str) -> Any:
    module, _, name = full_name.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _check_code(expected: dict[str, str]) -> None:
    changed = sorted(name for name, code in expected.items() if code_fingerprint(name) != code)
    if changed:
        raise PipelineStop(
            f"The image's code of {', '.join(changed)} is not the code that this package was "
            "compiled from. Build and push the image, then compile again."
        )


def execute(executor: Any, step: Step, executor_input: dict[str, Any]) -> None:
    """Runs an executor's `Do`.

    Args:
      executor: its class.
      step: what the compiler wrote.
      executor_input: KFP's ExecutorInput as JSON.

    Raises:
      PipelineStop: what a person has to put right.
    """
    if "train_job" in step:
        from pipeline.kubeflow.train_job import execution as train_job

        return train_job.execute(step, executor_input)
    inputs = artifacts.read(executor_input["inputs"].get("artifacts", {}), step["inputs"])
    inputs = {
        name: found
        for name, found in inputs.items()
        if name not in step["optional"] or any(Path(each.uri).exists() for each in found)
    }
    outputs = artifacts.read(executor_input["outputs"]["artifacts"], step["outputs"])
    for made in outputs.values():
        os.makedirs(made[0].uri, exist_ok=True)
    properties = _properties(step, executor_input)
    logging.info("%s starts", step["component"])
    with tempfile.TemporaryDirectory() as folder:
        _instance(executor, step["beam"], folder).Do(inputs, outputs, properties)
    for made in outputs.values():
        paths.resolve_links(Path(made[0].uri))
    _write(executor_input["outputs"]["outputFile"], artifacts.described(outputs))


def _properties(step: Step, executor_input: dict[str, Any]) -> dict[str, Any]:
    from tfx.utils import proto_utils

    from pipeline.kubeflow import parameters

    given = executor_input["inputs"].get("parameterValues", {})
    properties = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in given.items()
    }
    parameters.work_in(step["component"], properties)
    for name, kind in step["messages"].items():
        properties[name] = proto_utils.json_to_proto(properties[name], _class(kind)())
    return properties


def _instance(executor: Any, beam: list[str], folder: str) -> Any:
    from tfx.dsl.components.base import base_beam_executor, base_executor

    if issubclass(executor, base_beam_executor.BaseBeamExecutor):
        from components.ingest import batches

        batches.install()
        beam_context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=beam, tmp_dir=folder, unique_id="0"
        )
        return executor(beam_context)
    return executor(base_executor.BaseExecutor.Context(tmp_dir=folder, unique_id="0"))


def _write(file: str, output: dict[str, Any]) -> None:
    path = Path(paths.local(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(output))
    temporary.replace(path)
