"""How fast ArrowExampleGen is beside TFX's CsvExampleGen, and how much memory it takes.

    python -m benchmarks.ingest --rows 150020
    python -m benchmarks.ingest --rows 10000000

Both read the same file through their executors, as a pipeline runs them, in a process of their own,
and write gzipped TFRecords. Above 300,000 rows CsvExampleGen is left out: it would take minutes and
all memory. Expected on two cores: about 15 times CsvExampleGen at 150,020 rows, and less than 1 GiB
above start-up at 10 million.
"""

import argparse
import csv
import importlib.resources
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

COMPARED_UP_TO = 300_000
BEAM = [
    "--runner=FnApiRunner",
    "--direct_running_mode=in_memory",
    "--sdk_container_image=unused",  # Keeps TFX from packing its own source first.
]
_TEXTS = {"payment_type", "company"}
_FLOATS = {"fare", "tips", "trip_miles"}


class Measured(NamedTuple):
    """One run."""

    name: str
    seconds: float
    above_start: int
    rows: dict[str, int]


def main(rows: int) -> None:
    """Measures and prints a table.

    Args:
        rows: How many; the taxi rows of the installed tfx package, over and over.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "data" / "rows.csv", rows)
        steps: list[tuple[str, Callable[[str], Any]]] = [("ArrowExampleGen", arrow_example_gen)]
        if rows <= COMPARED_UP_TO:
            steps.append(("CsvExampleGen", csv_example_gen))
        results = [measure(name, step, folder) for name, step in steps]
    print(f"\n{rows:,} rows into gzipped TFRecords")
    print(f"{'':16} {'seconds':>8} {'rows/s':>9} {'MiB above start-up':>19}")
    for r in results:
        print(
            f"{r.name:16} {r.seconds:8.2f} {rows / r.seconds:9,.0f} {r.above_start / 2**20:19,.0f}"
        )
    if len(results) > 1:
        print(f"ratio: {results[1].seconds / results[0].seconds:.1f} (target: at least 12)")
    print(f"splits: {json.dumps(results[0].rows)}")


def write_rows(path: Path, rows: int) -> None:
    """Writes `rows` rows and a header, repeating those of the installed tfx package."""
    path.parent.mkdir(parents=True)
    with _taxi().open() as source, path.open("w") as target:
        target.write(source.readline())
        lines = source.readlines()
        while rows > 0:
            target.writelines(lines[:rows])
            rows -= len(lines)


def measure(name: str, step: Callable[[str], Any], folder: str) -> Measured:
    """Runs `step` in a fresh process and follows the memory of it and its children."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(step, folder, theirs))
    process.start()
    theirs.close()  # So that its end is noticed.
    ours.recv()  # It has imported all and is about to start.
    peak = _Peak(process.pid)
    ours.send("go")
    seconds, counts = ours.recv()
    process.join()
    return Measured(name, seconds, peak.stop(), counts)


class _Peak(threading.Thread):
    """Samples the resident memory of a process and its children."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._start = self._highest = self._now()
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        """Samples until stopped."""
        before = self._start
        while not self._ended.wait(0.02):
            # In a single sample a child may just have been forked, and share all that it has.
            now = self._now()
            self._highest = max(self._highest, min(before, now))
            before = now

    def stop(self) -> int:
        """Bytes above the first sample."""
        self._ended.set()
        self.join()
        return self._highest - self._start

    def _now(self) -> int:
        try:
            family = [self._process, *self._process.children(recursive=True)]
            return sum(member.memory_info().rss for member in family)
        except psutil.Error:  # One of them has just ended.
            return 0


def _run(step: Callable[[str], Any], folder: str, connection: Any) -> None:
    work = step(folder)
    connection.send("ready")
    connection.recv()
    begin = time.perf_counter()
    counts = work()
    connection.send((time.perf_counter() - begin, counts))


def arrow_example_gen(folder: str) -> Callable[[], dict[str, int]]:
    """Ours, ready to run over `folder`/data."""
    from components.ingest.component import ArrowExampleGen, Driver
    from components.ingest.settings import IngestSettings, Kind, Split

    with _taxi().open() as file:
        header = next(csv.reader(file))
    kinds: dict[str, Kind] = {
        name: "BYTES" if name in _TEXTS else "FLOAT" if _is_float(name) else "INT"
        for name in header
    }
    settings = IngestSettings(
        columns=kinds,
        label="big_tipper",
        split=Split(by="row", train=0.8, eval=0.1, test=0.1),
    )
    component = ArrowExampleGen(f"{folder}/data", "*.csv", settings)
    properties = _properties(component)
    driver = Driver.__new__(Driver)
    return _executor(component, driver.resolve_exec_properties(properties, None, None), folder)


def csv_example_gen(folder: str) -> Callable[[], dict[str, int]]:
    """TFX's, ready to run over `folder`/data."""
    from tfx.components import CsvExampleGen

    component = CsvExampleGen(input_base=f"{folder}/data")
    return _executor(component, _properties(component), folder)


def _executor(component: Any, properties: dict[str, Any], folder: str) -> Callable[[], Any]:
    from tfx.types import standard_artifacts

    examples = standard_artifacts.Examples()
    examples.uri = f"{folder}/{component.id}"
    executor_class = component.executor_spec.executor_class
    context = executor_class.Context(
        beam_pipeline_args=BEAM, tmp_dir=f"{folder}/tmp", unique_id="1"
    )

    def work() -> dict[str, int]:
        executor_class(context).Do({}, {"examples": [examples]}, properties)
        counts = Path(examples.uri, "counts.json")
        return json.loads(counts.read_text()) if counts.exists() else {}

    return work


def _properties(component: Any) -> dict[str, Any]:
    from tfx.utils import proto_utils

    plain = (str, int)
    return {
        key: value if isinstance(value, plain) else proto_utils.proto_to_json(value)
        for key, value in component.spec.exec_properties.items()
        if value is not None
    }


def _is_float(name: str) -> bool:
    return name in _FLOATS or name.endswith(("latitude", "longitude", "census_tract"))


def _taxi() -> Path:
    package = Path(str(importlib.resources.files("tfx")))
    return package / "examples/chicago_taxi_pipeline/data/big_tipper_label/data.csv"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=150_020)
    main(parser.parse_args().rows)
