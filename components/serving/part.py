"""KServe's model server for the champion, and the InferenceService that runs it on a cluster."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.command_line import ConfigName, Overrides, command

PANEL = "Serving"


def settings() -> dict[str, Any]:
    """`serving`: where the server listens, and its bounds."""
    from components.serving.settings import Serving

    return {"serving": (Serving, Serving())}


def problems(config: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields what does not fit the query."""
    if config.part("serving").recent is not None and config.data.sql is None:
        yield ("serving", "recent"), "is for the query of data.sql, and there is none"


def row_reader(config: Any) -> Any:
    """What puts requests through the query of `data.sql`; None if they come as the model reads."""
    recent = config.part("serving").recent
    if recent is None:
        return None
    from components.registry.signature import column_types
    from components.serving.recent import RecentRows
    from pipeline.graph import query_of
    from pipeline.loading import PROJECT
    from pipeline.schema import read_schema

    types: Any = column_types(read_schema(PROJECT / config.schema_file))
    query = query_of(config)
    return RecentRows(query, types, recent.key, recent.rows) if query else None


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for work in (serve, inference_service):
        command(app, PANEL)(work)


def serve(
    config: ConfigName = "development",
    set_: Overrides = None,
    version: Annotated[
        str, typer.Option("--version", metavar="VERSION", help="A number or a label.")
    ] = "champion",
) -> int:
    """Serve the champion over HTTP and gRPC (KServe's model server), and follow it."""
    from components.inference.prediction_log import PredictionLog
    from pipeline import loading, parts
    from pipeline.telling import output_to
    from pipeline.workspace import Workspace

    loaded = loading.load(config, set_ or [])
    workspace, model = Workspace(loading.PROJECT / loaded.workspace), loaded.registry.model
    sys.argv[1:] = []  # KServe parses it on import, and takes `--config` for its own
    with output_to():  # TensorFlow's words on starting
        from components.serving import run

        reader = parts.row_reader(loaded)
    log = PredictionLog(workspace.predictions, model, loaded.prediction_log)
    try:
        folder = str(workspace.registry / model)
        return run.run(folder, version, loaded.part("serving"), log, reader)
    finally:
        log.close()


def inference_service(
    image: Annotated[str, typer.Option(help="The project's image, where the cluster finds it.")],
    claim: Annotated[
        str, typer.Option(help="The PersistentVolumeClaim that holds the workspace.")
    ] = "workspace",
    config: ConfigName = "development",
    set_: Overrides = None,
) -> int:
    """Print the KServe InferenceService that runs this server on a cluster."""
    from pipeline import loading

    model = loading.load(config, set_ or []).registry.model
    chosen = ["serve", f"--config={config}", *(f"--set={one}" for one in set_ or [])]
    values = {
        "NAME": re.sub("[^a-z0-9]+", "-", model.lower()).strip("-"),
        "IMAGE": image,
        "ARGS": ", ".join(map(json.dumps, chosen)),
        "CLAIM": claim,
    }
    text = Path(__file__).with_name("inference_service.yaml").read_text()
    print(re.sub("%([A-Z]+)%", lambda name: values[name[1]], text), end="")
    return 0
