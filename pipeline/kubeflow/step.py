"""`python -m pipeline.kubeflow.step COMPONENT INPUT`: one TFX executor, as KFP's launcher calls it.

The environment variable PIPELINE_STEP has the configuration. From it, and from the values that this
run gives to parameters, the step makes the pipeline's graph again, and takes its component.

When a step fails, it prints a last line `COMPONENT failed: REASON`; the API gives no reason, and
the launcher prints its own lines after it. A process that is killed says nothing.
"""

import argparse
import importlib
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import PipelineStop
from components.files import write_atomically

Document = dict[str, Any]
Artifacts = dict[str, list[Any]]
"""TFX artifacts by the name of the input or output."""
_OF_KFP = ("display_name", "store_session_info")
"""What KFP adds to an artifact's metadata."""


class Stores:
    """KFP's URIs, and the folders where its launcher puts what they name."""

    def __init__(self, root: str = "/"):
        """Takes the folder that holds `minio`, `s3` and `gcs`; in a container that is `/`."""
        folders = {"minio://": "minio/", "s3://": "s3/", "gs://": "gcs/"}
        self._folders = {scheme: root + folder for scheme, folder in folders.items()}

    def local(self, uri: str) -> str:
        """`minio://bucket/key` -> `/minio/bucket/key`; what has no such scheme stays as it is."""
        for scheme, folder in self._folders.items():
            if uri.startswith(scheme):
                return folder + uri.removeprefix(scheme)
        return uri

    def remote(self, path: str) -> str:
        """`/minio/bucket/key` -> `minio://bucket/key`; any other text stays as it is."""
        for scheme, folder in self._folders.items():
            if path.startswith(folder):
                return scheme + path.removeprefix(folder)
        return path


def main(argv: list[str]) -> int:
    """Runs a step; the exit code comes back."""
    flags = argparse.ArgumentParser(prog="python -m pipeline.kubeflow.step")
    flags.add_argument("component", help="the component's name in the graph")
    flags.add_argument("input", help="KFP's executor input as JSON, or @ and its file")
    flags.add_argument("--stores", default="/", help="where the launcher's folders are")
    arguments = flags.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("progress").setLevel(logging.INFO)
    logging.getLogger("apache_beam.typehints").setLevel(logging.WARNING)  # a line for each type
    try:
        text = arguments.input
        text = Path(text[1:]).read_text() if text.startswith("@") else text
        told = json.loads(os.environ["PIPELINE_STEP"])
        _run(told, json.loads(text), Stores(arguments.stores))
    except BaseException as error:  # what ends the process must be named in its last line
        return _tell(arguments.component, error)
    print(f"{arguments.component} is done.", flush=True)
    return 0


def _run(told: Document, executor_input: Document, stores: Stores) -> None:
    if "train_job" in told:  # its workers import the component
        from pipeline.kubeflow.train_job import execution

        return execution.execute(told, executor_input, stores)
    from pipeline import imports

    with imports.no_more_than_needed():
        component = make_component(told, executor_input["inputs"].get("parameterValues", {}))
    execute(component, executor_input, stores)


def make_component(told: Document, values: Mapping[str, Any]) -> Any:
    """The component of a step, made from the graph.

    Args:
      told: `component` (its name), `graph` (a module), `config`, `workspace` (a path), `code` (the
        graph's fingerprint), `schema` (the schema file's hash), `git_commit`, and `more` (for the
        graph).
      values: the run's parameters and `run_id`, by name.

    Raises:
      PipelineStop: a value is wrong, or the image is not what the package was compiled from.
    """
    from pipeline.config import config_model
    from pipeline.kubeflow import parameters
    from pipeline.loading import PROJECT
    from pipeline.workspace import Workspace

    path = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    module = importlib.import_module(told["graph"])
    config = parameters.changed(config_model().model_validate(told["config"]), values)
    here = image_of(told["graph"], config)
    if changed := [name for name, value in here.items() if value != told[name]]:
        raise PipelineStop(
            f"The image's {' and '.join(changed)} are not what this package was compiled from. "
            "Build and push the image, then compile again."
        )
    workspace = Workspace(Path(told["workspace"]), is_here=False)
    graph = module.create_pipeline(config, workspace, **told["more"])
    [found] = [each for each in graph.components if each.id == told["component"]]
    properties: Document = found.exec_properties
    known = {"git_commit": told["git_commit"], "run_id": values.get("run_id")}
    if "://" in config.data.path:
        known["input_base"] = config.data.path
    properties.update({name: known[name] for name in known.keys() & properties.keys()})
    return found


def image_of(graph: str, config: Any) -> dict[str, str]:
    """What identifies the files that a graph is made from, here and in the image."""
    import hashlib

    from pipeline.fingerprint import code_fingerprint
    from pipeline.loading import PROJECT

    schema = PROJECT / config.schema_file
    content = schema.read_bytes() if schema.is_file() else b""
    digest = hashlib.sha256(content).hexdigest()[:16]
    return {"code": code_fingerprint(graph), "schema": digest}


def execute(component: Any, executor_input: Document, stores: Stores) -> None:
    """Runs the executor of a component of the graph, and writes KFP's executor output."""
    wanted = executor_input["outputs"]
    inputs = _read(executor_input["inputs"].get("artifacts", {}), component.inputs, stores)
    for name, channel in component.spec.INPUTS.items():
        is_there = any(Path(each.uri).exists() for each in inputs.get(name, []))
        if channel.optional and not is_there:
            inputs.pop(name, None)
    outputs = _read(wanted["artifacts"], component.outputs, stores)
    for [artifact] in outputs.values():
        os.makedirs(artifact.uri, exist_ok=True)
    properties = {n: v for n, v in component.exec_properties.items() if v is not None}
    logging.info("%s starts", component.id)
    with tempfile.TemporaryDirectory() as folder:
        _executor(component, folder).Do(inputs, outputs, properties)
    written: Document = {"artifacts": {}}
    for name, [artifact] in outputs.items():
        _resolve_links(Path(artifact.uri))
        written["artifacts"][name] = {"artifacts": [_described(name, artifact, stores)]}
    for decision in wanted.get("parameters", {}):
        [artifact] = next(iter(outputs.values()))
        written["parameterValues"] = {decision: artifact.get_int_custom_property(decision)}
    write_atomically(stores.local(wanted["outputFile"]), json.dumps(written))


def _executor(component: Any, folder: str) -> Any:
    from tfx.dsl.components.base import base_beam_executor, base_executor

    executor = component.executor_spec.executor_class
    context: Document = {"tmp_dir": folder, "unique_id": "0"}
    if not issubclass(executor, base_beam_executor.BaseBeamExecutor):
        return executor(base_executor.BaseExecutor.Context(**context))
    from components.ingest import batches

    batches.install()
    context["beam_pipeline_args"] = component.executor_spec.beam_pipeline_args or []
    return executor(base_beam_executor.BaseBeamExecutor.Context(**context))


def _read(given: Document, channels: Mapping[str, Any], stores: Stores) -> Artifacts:
    """TFX artifacts with local paths, of the graph's types.

    KFP hands inputs over without a type, and adds an output `executor-logs`, which no executor
    knows. The custom property `uri` says where an input is kept.
    """
    found: Artifacts = {}
    for name, channel in channels.items():
        for each in given.get(name, {}).get("artifacts", []):
            artifact = read_artifact(each, channel.type)
            artifact.uri = stores.local(each["uri"])
            if artifact.uri != each["uri"] and "metadata" in each:
                artifact.set_string_custom_property("uri", each["uri"])
            found.setdefault(name, []).append(artifact)
    return found


def read_artifact(given: Mapping[str, Any], kind: type) -> Any:
    """A TFX artifact from KFP's RuntimeArtifact as JSON, whose numbers are doubles."""
    found: Any = kind()
    found.uri, name = given["uri"], given.get("name", "")
    if name.isdigit():  # the metadata store's id
        found.id = int(name)
    setters = {
        int: found.set_int_custom_property,
        float: found.set_float_custom_property,
        str: found.set_string_custom_property,
    }
    for key, number in given.get("metadata", {}).items():
        is_whole = isinstance(number, float) and number.is_integer()
        value = int(number) if is_whole else number
        if key in (found.PROPERTIES or {}):
            setattr(found, key, value)
        elif key not in _OF_KFP:
            put = setters.get(type(value), found.set_json_value_custom_property)
            put(key.removeprefix("custom:"), value)
    return found


def _described(name: str, artifact: Any, stores: Stores) -> Document:
    """An output for KFP: with URIs again, and without nulls, which would fail the task."""
    import tfx.version
    from google.protobuf import json_format

    os.environ["_KFP_RUNTIME"] = "true"  # of KFP's SDK only the messages are imported
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as utils

    del os.environ["_KFP_RUNTIME"]

    artifact.set_string_custom_property("tfx_version", tfx.version.__version__)
    message = utils.to_runtime_artifact(artifact, {artifact.id: artifact.name})
    metadata = {
        key: stores.remote(value) if isinstance(value, str) else value
        for key, value in json_format.MessageToDict(message.metadata).items()
        if value is not None
    }
    return {"name": name, "uri": stores.remote(artifact.uri), "metadata": metadata}


def _resolve_links(folder: Path) -> None:
    """Puts a copy in place of each link to a folder: KFP's launcher fails at one."""
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_symlink():
                target = path.resolve()
                path.unlink()
                shutil.copytree(target, path)


def _tell(component: str, error: BaseException) -> int:
    from components.trainer.core.interruption import START_AGAIN
    from pipeline.telling import reason

    if not isinstance(error, PipelineStop):
        traceback.print_exception(error)
    text, code = reason(error), 1
    if isinstance(error, KeyboardInterrupt):
        text, code = "interrupted; a checkpoint is kept, the next attempt goes on", START_AGAIN
    sys.stdout.flush()
    print(f"{component} failed: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # threads of Beam and TensorFlow have nothing more to say
