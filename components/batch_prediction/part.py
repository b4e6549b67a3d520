"""Bulk prediction of files of rows, in Beam: the command batch-predict."""

import csv
import logging
import os
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command_line import ConfigName, Overrides, told

if TYPE_CHECKING:
    from components.batch_prediction.job import Options
    from components.batch_prediction.run import Result
    from pipeline.config import Config

PANEL = "Serving"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel=PANEL)(batch_predict)


def batch_predict(
    input_: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FOLDER|PATTERN",
            help="CSV (gzipped or not) or Parquet; 'package:NAME/...' is inside a Python package.",
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
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="parquet or jsonl.")
    ] = "parquet",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
) -> None:
    """Predict files of rows with Beam; killed and run again, each key is there once."""

    def predict() -> int:
        from components.batch_prediction.job import Options
        from components.errors import PipelineStop
        from pipeline import loading

        names = tuple(filter(None, next(csv.reader([columns], skipinitialspace=True), ())))
        pattern = str(loading.in_package("--input", input_)) if input_ else ""
        loaded = loading.load(config, set_ or [])
        if loaded.data.sql:
            raise PipelineStop(
                f"{config} has data.sql, which batch prediction does not run. Give it rows that "
                "the query has been applied to, with --set data.sql=null --set data.tables={}."
            )
        options = Options(pattern, output, version, key, names, format_, overwrite, loaded.data.csv)
        return _predict(loaded, options)

    raise SystemExit(told(predict))


def _predict(config: "Config", options: "Options") -> int:
    from pipeline import loading
    from pipeline.beam import beam_flags
    from pipeline.console import RunLines, output_to, shown
    from pipeline.workspace import Workspace

    workspace, model = Workspace(loading.PROJECT / config.workspace), config.registry.model
    workspace.make()
    log = workspace.logs / f"{model}-predict-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    with output_to(log) as console, RunLines(console) as lines:
        console.print(f"{model}: {options.input} to {options.output}, log in {shown(log)}")
        logging.basicConfig(level=logging.INFO, force=True)
        with lines.step("(loading Beam)"):
            import tensorflow  # noqa: F401  (else the first worker's work begins with it)

            from components.batch_prediction.run import run

        with lines.step("BatchPredict"):
            result = run(
                options,
                str(workspace.registry / model),
                beam_flags(config, "BatchPredict"),
                config.prediction_log,
                str(workspace.predictions),
            )
    _tell(result, model)
    return 1 if result.rejected and not result.rows else 0


def _tell(result: "Result", model: str) -> None:
    rate = f", {result.rows / result.seconds:,.0f} rows a second"
    took = "done before" if result.done_before else f"{result.seconds:.1f} s{rate}"
    files = "1 file" if result.files == 1 else f"{result.files:,} files"
    print(
        f"\n{result.rows:,} rows predicted by {model}, version {result.version} ({files}, {took})"
    )
    print(f"  {result.folder}/predictions (key, prediction, version)")
    if result.rejected:
        print(f"  {result.rejected:,} rows set aside with the reasons: {result.folder}/rejected")
    if result.done_before:
        print("This very job was finished already: nothing was predicted anew (--overwrite does).")
