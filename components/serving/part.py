"""KServe's model server for the champion; `predict` for single rows; the InferenceService."""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from components.errors import PipelineStop
from pipeline.command_line import ConfigName, Overrides, told

PANEL = "Serving"

Version = Annotated[str, typer.Option("--version", metavar="VERSION", help="A number or a label.")]


def settings() -> dict[str, Any]:
    """`serving`: where the server listens, and its bounds."""
    from components.serving.settings import Serving

    return {"serving": (Serving, Serving())}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (serve, predict, inference_service):
        app.command(rich_help_panel=PANEL)(command)


def serve(
    config: ConfigName = "development", set_: Overrides = None, version: Version = "champion"
) -> None:
    """Serve the champion over HTTP and gRPC (KServe's model server), and follow it."""
    raise SystemExit(told(lambda: _serve(config, set_ or [], version)))


def predict(
    rows: Annotated[
        str, typer.Argument(metavar="JSON", help="A row {column: value}, a list of rows, or '-'.")
    ],
    config: ConfigName = "development",
    set_: Overrides = None,
    version: Version = "champion",
) -> None:
    """Predict rows in this process, as the server would."""
    raise SystemExit(told(lambda: _predict(config, set_ or [], version, rows)))


def inference_service(
    image: Annotated[str, typer.Option(help="The project's image, where the cluster finds it.")],
    claim: Annotated[
        str, typer.Option(help="The PersistentVolumeClaim that holds the workspace.")
    ] = "workspace",
    config: ConfigName = "development",
    set_: Overrides = None,
) -> None:
    """Print the KServe InferenceService that runs this server on a cluster."""
    raise SystemExit(told(lambda: _inference_service(config, set_ or [], image, claim)))


def _serve(config_name: str, overrides: list[str], version: str) -> int:
    from components.inference.prediction_log import PredictionLog
    from pipeline import loading
    from pipeline.workspace import Workspace

    config = loading.load(config_name, overrides)
    workspace = Workspace(loading.PROJECT / config.workspace)
    log = PredictionLog(workspace.predictions, config.registry.model, config.prediction_log)
    _start_tensorflow()
    from components.serving import server

    folder = workspace.registry / config.registry.model
    return server.main(str(folder), version, config.part("serving"), log)


def _predict(config_name: str, overrides: list[str], version: str, text: str) -> int:
    from pipeline import loading
    from pipeline.workspace import Workspace

    rows = _read_rows(text)
    config = loading.load(config_name, overrides)
    workspace = Workspace(loading.PROJECT / config.workspace)
    _start_tensorflow()
    from components.inference.columns import InvalidRows
    from components.inference.model import LoadedVersion, choose
    from components.serving import instances

    chosen = choose(str(workspace.registry / config.registry.model), version)
    loaded = LoadedVersion(chosen)
    try:
        columns, keys = instances.read(loaded.signature, {"instances": rows})
    except InvalidRows as error:
        raise PipelineStop(f"Version {loaded.version} of '{chosen.name}': {error}.") from error
    reply = instances.reply(keys, loaded.predict(columns))
    answer = {"model": chosen.name, "version": loaded.version, **reply}
    print(instances.as_json(answer).decode())
    return 0


def _start_tensorflow() -> None:
    """Lets TensorFlow say which processors it finds where nobody hears it.

    Without the garbage collector, which would look again and again through what stays.
    """
    from pipeline.console import output_to

    gc.disable()
    with output_to(Path(os.devnull)):
        import tensorflow as tf

        tf.config.list_physical_devices()
    gc.freeze()
    gc.enable()


def _read_rows(text: str) -> list[Any]:
    try:
        rows = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise PipelineStop(
            f'That is not JSON: {error}. A row is {{"column": value, ...}}, in single quotes on '
            "the command line; several are [{...}, {...}]."
        ) from error
    return rows if isinstance(rows, list) else [rows]


def _inference_service(config_name: str, overrides: list[str], image: str, claim: str) -> int:
    from components.serving import inference_service as made
    from pipeline import loading

    config = loading.load(config_name, overrides)
    print(made.make(config.registry.model, image, claim, config_name, overrides), end="")
    return 0
