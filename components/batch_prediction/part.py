"""Bulk prediction of files of rows, in Beam: the command batch-predict."""

import csv
import logging
import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.command_line import ConfigName, Overrides, command
from pipeline.predict import Distribution, Explain, Uncertainty, detail_of

if TYPE_CHECKING:
    from pipeline.config import Config


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "Serving")(batch_predict)


def batch_predict(
    input_: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FOLDER|PATTERN",
            help="CSV, JSON lines or Parquet; 'package:NAME/...' is inside a Python package.",
        ),
    ],
    output: Annotated[str, typer.Option(metavar="FOLDER", help="Where the predictions go.")],
    config: ConfigName = "development",
    set_: Overrides = None,
    version: Annotated[
        str, typer.Option("--version", metavar="VERSION", help="A number or a label.")
    ] = "champion",
    key: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The rows' key; FILE:ROW if there is none."),
    ] = None,
    columns: Annotated[
        str, typer.Option(metavar="A,B", help="Columns to carry into the output, quoted as in CSV.")
    ] = "",
    uncertainty: Uncertainty = False,
    distribution: Distribution = False,
    explain: Explain = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
) -> int:
    """Predict files of rows with Beam; killed and run again, each key is there once."""
    from components.batch_prediction.job import Form
    from pipeline import loading
    from pipeline.telling import RunLines, output_to, shown
    from pipeline.workspace import Workspace

    loaded = loading.load(config, set_ or [])
    form = Form(
        key=key,
        columns=list(filter(None, next(csv.reader([columns], skipinitialspace=True), ()))),
        detail=detail_of(uncertainty, distribution, explain),
        csv=loaded.data.csv,
        **_query(loaded),
    )
    pattern = str(loading.in_package("--input", input_)) if input_ else ""
    workspace, model = Workspace(loading.PROJECT / loaded.workspace), loaded.registry.model
    workspace.make()
    log = workspace.logs / f"{model}-predict-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    with output_to(log) as console, RunLines(console) as lines:
        console.print(f"{model}: {pattern} to {output}, log in {shown(log)}")
        logging.basicConfig(level=logging.INFO, force=True)
        with lines.step("(loading Beam)"):
            import tensorflow  # noqa: F401  (else the first worker's work begins with it)

            from components.batch_prediction.run import run
        began = time.monotonic()
        with lines.step("BatchPredict"):
            result = run(
                pattern,
                Path(output),
                str(workspace.registry / model),
                form,
                loaded.beam.flags("BatchPredict"),
                version,
                overwrite,
                loaded.prediction_log,
                str(workspace.predictions),
            )
    seconds = time.monotonic() - began
    rate = f"{seconds:.1f} s, {result.rows / seconds:,.0f} rows a second"
    took = "done before" if result.done_before else rate
    files = "1 file" if result.files == 1 else f"{result.files:,} files"
    print(
        f"\n{result.rows:,} rows predicted by {model}, version {result.version} ({files}, {took})"
    )
    print(f"  {output}/predictions")
    if result.rejected:
        print(f"  {result.rejected:,} rows set aside with the reasons: {output}/rejected")
    if result.done_before:
        print("This very job was finished already: nothing was predicted anew (--overwrite does).")
    return 1 if result.rejected and not result.rows else 0


def _query(config: "Config") -> dict[str, Any]:
    """The query of `data.sql`, and the schema's types, which it reads the rows with."""
    if config.data.sql is None:
        return {}
    from components.registry.signature import column_types
    from pipeline.graph import query_of
    from pipeline.loading import PROJECT
    from pipeline.schema import read_schema

    types = column_types(read_schema(PROJECT / config.schema_file))
    return {"query": query_of(config), "types": types}
