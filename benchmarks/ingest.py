"""`make bench-ingest`: ingest and batch prediction alone, beside TFX's own components.

    python -m benchmarks.ingest                    # 150,020 rows
    python -m benchmarks.ingest --rows 10000000    # above 2 million: without TFX's own

Each reads the same CSV file through its executor, as a pipeline runs it, in a process of its own:
ArrowExampleGen beside CsvExampleGen, and batch prediction beside BulkInferrer (which reads the
examples that ArrowExampleGen has made). Imports are not in the time; loading the model is. Up to
200,000 rows the predictions are compared too; the version is one of 15,002 rows.
"""

import argparse
import importlib.resources
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import BEAM, CONFIG, Alone, Bench, alone, bench, run_ours
from pipeline import loading
from pipeline.workspace import Workspace

_TFX_UP_TO, _PREDICTED_UP_TO = 2_000_000, 200_000
_TIMES_CSV = {150_020: 12.0, 1_500_000: 20.0}
_TIMES_BULK = 5.0


def main() -> None:
    """Measures and tells."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.ingest",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[150_020])
    with bench("ingest") as made:
        for rows in parser.parse_args().rows:
            folder = made.scratch / str(rows)
            write_rows(folder / "data" / "rows.csv", rows)
            _measure(made, rows, folder)


def _measure(made: Bench, rows: int, folder: Path) -> None:
    steps: dict[str, Callable[[Path], Callable[[], Any]]] = {"ArrowExampleGen": arrow_example_gen}
    if rows <= _TFX_UP_TO:
        steps["CsvExampleGen"] = csv_example_gen
    if rows <= _PREDICTED_UP_TO:
        with made.step("a version to predict with"):
            write_rows(folder / "fewer" / "rows.csv", 15_002)
            run_ours(folder / "workspace", folder / "fewer")
            shutil.copytree(_registry(folder) / "1", folder / "model" / "Format-Serving")
        steps |= {"batch prediction": batch_prediction, "BulkInferrer": bulk_inferrer}
    found: dict[str, Alone] = {}
    for name, step in steps.items():
        with made.step(f"{rows:>10,} rows: {name}"):
            found[name] = alone(partial(step, folder))
    lines = [
        [name, one.seconds, f"{rows / one.seconds:,.0f}", one.above_start / 2**20]
        for name, one in found.items()
    ]
    made.tell(f"\n{rows:,} rows", "s", "rows/s", "MiB above start-up", rows=lines)
    made.figures[f"{rows}"] = {name: one._asdict() for name, one in found.items()}
    if "CsvExampleGen" in found:
        times = found["CsvExampleGen"].seconds / found["ArrowExampleGen"].seconds
        goal = _TIMES_CSV.get(rows, 12.0)
        made.target(f"{rows:,}: times CsvExampleGen's rows/s", times, goal, at_least=True)
    if "BulkInferrer" in found:
        times = found["BulkInferrer"].seconds / found["batch prediction"].seconds
        made.target(f"{rows:,}: times BulkInferrer's rows/s", times, _TIMES_BULK, at_least=True)
        difference = alone(partial(largest_difference, folder)).result
        made.target(f"{rows:,}: largest difference to BulkInferrer's", difference, 1e-6)


def write_rows(path: Path, rows: int) -> None:
    """Writes `rows` rows and a header, repeating those of the installed tfx package.

    A repeated row falls into the same split as the first: no leak into the test.
    """
    package = Path(str(importlib.resources.files("tfx")))
    taxi = package / "examples/chicago_taxi_pipeline/data/big_tipper_label/data.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with taxi.open() as source, path.open("w") as target:
        target.write(source.readline())
        lines = source.readlines()
        while rows > 0:
            target.writelines(lines[:rows])
            rows -= len(lines)


def arrow_example_gen(folder: Path) -> Callable[[], Any]:
    """Ours, ready to run over `folder`/data."""
    from pipeline import graph

    workspace = Workspace(folder / "of-ingest")
    config = loading.load(CONFIG, [f"data.path={folder / 'data'}"])
    components = graph.create_pipeline(config, workspace).components
    (component,) = (c for c in components if c.id == "ExampleGen")
    properties = _properties(component)
    driver = component.driver_class.__new__(component.driver_class)
    resolved = driver.resolve_exec_properties(properties, None, None)
    return _executor(component, resolved, folder)


def csv_example_gen(folder: Path) -> Callable[[], Any]:
    """TFX's, ready to run over `folder`/data."""
    from tfx.components import CsvExampleGen

    component = CsvExampleGen(input_base=f"{folder}/data")
    return _executor(component, _properties(component), folder)


def _executor(component: Any, properties: dict[str, Any], folder: Path) -> Callable[[], Any]:
    from tfx.types import standard_artifacts

    examples = standard_artifacts.Examples()
    examples.uri = f"{folder}/{component.id}"
    executor_class = component.executor_spec.executor_class
    context = executor_class.Context(BEAM, tmp_dir=f"{folder}/tmp", unique_id="1")

    def work() -> Any:
        executor_class(context).Do({}, {"examples": [examples]}, properties)
        counts = Path(examples.uri, "counts.json")
        return json.loads(counts.read_text()) if counts.exists() else None

    return work


def _properties(component: Any) -> dict[str, Any]:
    from tfx.utils import proto_utils

    return {
        key: value if isinstance(value, str | int) else proto_utils.proto_to_json(value)
        for key, value in component.spec.exec_properties.items()
        if value is not None
    }


def batch_prediction(folder: Path) -> Callable[[], Any]:
    """Ours, ready to predict the rows of `folder`/data."""
    import tensorflow as tf

    from components.batch_prediction.job import Form
    from components.batch_prediction.run import run

    assert tf  # which predicting would import
    place = (f"{folder}/data/rows.csv", folder / "predicted", str(_registry(folder)))
    return lambda: run(*place, Form(), BEAM, version="1").rows


def bulk_inferrer(folder: Path) -> Callable[[], Any]:
    """TFX's, ready to predict the examples made from the same rows."""
    from tfx.components.bulk_inferrer import executor
    from tfx.proto import bulk_inferrer_pb2
    from tfx.types import artifact_utils, standard_artifacts
    from tfx.utils import proto_utils

    examples, model = standard_artifacts.Examples(), standard_artifacts.Model()
    result = standard_artifacts.InferenceResult()
    examples.uri = f"{folder}/ExampleGen"
    model.uri, result.uri = f"{folder}/model", f"{folder}/inferred"
    examples.split_names = artifact_utils.encode_split_names(["train", "eval", "test"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    properties = {
        "data_spec": proto_utils.proto_to_json(bulk_inferrer_pb2.DataSpec()),
        "model_spec": proto_utils.proto_to_json(bulk_inferrer_pb2.ModelSpec()),
    }
    context = executor.Executor.Context(BEAM, tmp_dir=f"{folder}/tmp", unique_id="1")
    inputs, outputs = {"examples": [examples], "model": [model]}, {"inference_result": [result]}
    return lambda: executor.Executor(context).Do(inputs, outputs, properties)


def largest_difference(folder: Path) -> Callable[[], float]:
    """Ready to compare all predictions of both; they are in no order, so in the order of size."""
    import numpy as np
    import tensorflow as tf
    from pyarrow import parquet
    from tensorflow_serving.apis import prediction_log_pb2

    def work() -> float:
        files = [str(file) for file in (folder / "inferred").iterdir()]
        theirs = []
        for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record).predict_log
            theirs.append(tf.make_ndarray(log.response.outputs["predictions"]).item())
        own = parquet.read_table(folder / "predicted" / "predictions")["prediction"].to_numpy()
        return float(np.abs(np.sort(own) - np.sort(theirs)).max())

    return work


def _registry(folder: Path) -> Path:
    (found,) = (folder / "workspace" / "registry").iterdir()
    return found


if __name__ == "__main__":
    main()
