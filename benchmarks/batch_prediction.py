"""How fast batch prediction is beside TFX's BulkInferrer.

    python -m benchmarks.batch_prediction                  # 15,002 and 150,020 rows
    python -m benchmarks.batch_prediction --rows 1500200

Both predict the same rows with the same version (the pipeline runs first, untimed) under the same
Beam flags, each run in a process of its own. The time is from the start of the work to the end of
writing, loading the model included; imports are not in it. Ours reads CSV or Parquet and writes
Parquet. BulkInferrer runs through its executor, reads the gzipped TFRecords of examples that the
pipeline's ExampleGen has made of the CSV, and writes its inference results; its batches are those
that tfx_bsl chooses. Each is run several times, in turns; medians are shown. Loading the version as
ours does is measured alone too: it does not grow with the rows.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import ingest, ours, report
from benchmarks.ingest import BEAM, Measured
from pipeline.loading import PROJECT
from pipeline.telling import output_to, table

_ROWS = [15_002, 150_020]
_GOAL = 5.0
_VERSION = "1"
_BULK_INFERRER, _CSV, _PARQUET = "BulkInferrer", "ours, CSV", "ours, Parquet"
_LOADING = "loading alone"


def main() -> None:
    """Measures and prints a table for each number of rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=_ROWS)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    log = PROJECT / "workspace" / "logs" / "benchmark-batch-prediction.log"
    with output_to(log) as console, tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        console.width = 110
        os.environ["TMPDIR"] = scratch  # Beam leaves files behind.
        for rows in arguments.rows:
            folder = Path(scratch) / str(rows)
            _prepare(folder, rows)
            console.print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
            runs = _measure(folder, arguments.repeats)
            _check_alike(folder, rows)
            _tell(rows, runs, console)


def _prepare(folder: Path, rows: int) -> None:
    """The rows in all three formats, and a version as both read it."""
    from pyarrow import csv, parquet

    data = folder / "data" / "rows.csv"
    ingest.write_rows(data, rows)
    ours.run(folder / "workspace", folder / "data", [])
    parquet.write_table(csv.read_csv(data), folder / "data" / "rows.parquet")
    shutil.copytree(_registry(folder) / _VERSION, folder / "model" / "Format-Serving")


def _registry(folder: Path) -> Path:
    (found,) = (folder / "workspace" / "registry").iterdir()
    return found


def _measure(folder: Path, repeats: int) -> dict[str, list[Measured]]:
    steps: dict[str, Callable[[str], Any]] = {
        _BULK_INFERRER: bulk_inferrer,
        _CSV: from_csv,
        _PARQUET: from_parquet,
        _LOADING: loading,
    }
    runs: dict[str, list[Measured]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            shutil.rmtree(folder / name, ignore_errors=True)
            runs[name].append(ingest.measure(name, step, str(folder)))
    return runs


def from_csv(folder: str) -> Callable[[], dict[str, int]]:
    """Ours, ready to predict the rows of `folder`/data as CSV."""
    return _ours(folder, "rows.csv", _CSV)


def from_parquet(folder: str) -> Callable[[], dict[str, int]]:
    """The same as Parquet."""
    return _ours(folder, "rows.parquet", _PARQUET)


def _ours(folder: str, rows: str, output: str) -> Callable[[], dict[str, int]]:
    import tensorflow as tf

    from components.batch_prediction.job import Options
    from components.batch_prediction.run import run

    assert tf  # which predicting would import
    registry = str(_registry(Path(folder)))
    options = Options(f"{folder}/data/{rows}", f"{folder}/{output}", version=_VERSION)
    return lambda: {"rows": run(options, registry, BEAM).rows}


def loading(folder: str) -> Callable[[], dict[str, int]]:
    """Loading the version and predicting one row, as ours begins."""
    import tensorflow as tf

    from components.inference.model import Chosen, LoadedVersion

    assert tf
    chosen = Chosen(str(_registry(Path(folder))), int(_VERSION))
    return lambda: {"rows": LoadedVersion(chosen).outputs}


def bulk_inferrer(folder: str) -> Callable[[], dict[str, int]]:
    """TFX's, ready to predict the examples made from the same rows."""
    from tfx.components.bulk_inferrer import executor
    from tfx.proto import bulk_inferrer_pb2
    from tfx.utils import proto_utils

    inputs, outputs = _artifacts(folder)
    properties = {
        "data_spec": proto_utils.proto_to_json(bulk_inferrer_pb2.DataSpec()),
        "model_spec": proto_utils.proto_to_json(bulk_inferrer_pb2.ModelSpec()),
    }
    context = executor.Executor.Context(
        beam_pipeline_args=BEAM, tmp_dir=f"{folder}/tmp", unique_id="1"
    )

    def work() -> dict[str, int]:
        executor.Executor(context).Do(inputs, outputs, properties)
        return {}

    return work


def _artifacts(folder: str) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """What goes into the BulkInferrer, and what comes out."""
    from tfx.types import artifact_utils, standard_artifacts

    examples, model = standard_artifacts.Examples(), standard_artifacts.Model()
    result = standard_artifacts.InferenceResult()
    examples.uri = str(ours.examples(Path(folder) / "workspace"))
    model.uri, result.uri = f"{folder}/model", f"{folder}/{_BULK_INFERRER}"
    examples.split_names = artifact_utils.encode_split_names(["train", "eval", "test"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    return {"examples": [examples], "model": [model]}, {"inference_result": [result]}


def _check_alike(folder: Path, rows: int) -> None:
    """All three have predicted every row, and the same."""
    import tensorflow as tf
    from pyarrow import parquet
    from tensorflow_serving.apis import prediction_log_pb2

    files = [str(file) for file in (folder / _BULK_INFERRER).iterdir()]
    theirs = []
    for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record).predict_log
        theirs.append(tf.make_ndarray(log.response.outputs["predictions"]).item())
    for name in (_CSV, _PARQUET):
        found = parquet.read_table(folder / name / "predictions")["prediction"].to_numpy()
        assert len(found) == len(theirs) == rows, (name, len(found), len(theirs))
        np.testing.assert_allclose(np.sort(found), np.sort(theirs), atol=1e-6)


def _tell(rows: int, runs: dict[str, list[Measured]], console: Console) -> None:
    lines = table(
        f"\n{rows:,} rows", "s", "rows/s", "times BulkInferrer", "MiB above start-up", "all runs, s"
    )
    medians = {n: statistics.median(run.seconds for run in found) for n, found in runs.items()}
    for name, seconds in medians.items():
        each = " ".join(f"{run.seconds:.2f}" for run in runs[name])
        memory = max(run.above_start for run in runs[name]) / 2**20
        speed, ratio = f"{rows / seconds:,.0f}", f"{medians[_BULK_INFERRER] / seconds:.1f}"
        of_rows = ("", "") if name == _LOADING else (speed, ratio)
        lines.add_row(name, f"{seconds:.2f}", *of_rows, f"{memory:,.0f}", each)
    console.print(lines)
    slower = medians[_BULK_INFERRER] / max(medians[_CSV], medians[_PARQUET])
    report.tell_targets(
        [report.Target(f"{rows:,}: batch prediction, times BulkInferrer", slower, _GOAL, True)],
        console,
        "The slower of our two counts.",
    )


if __name__ == "__main__":
    main()
