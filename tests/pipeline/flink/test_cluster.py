"""On a real Flink cluster, on real data in ten files: what one machine computes, and its faults."""

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.dataset
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from components.errors import PipelineStop
from pipeline import loading
from pipeline.flink import cluster, runner
from tests.pipeline.flink import steps

pytestmark = [
    pytest.mark.prove,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not (shutil.which("java") and shutil.which("mvn")), reason="needs Java"),
]
PROJECT = Path(__file__).parents[3]
FILES = 10
REST = f"http://localhost:{cluster.REST}"


class Place:
    """A workspace, and the commands that fill it: here, or on Flink."""

    def __init__(self, folder: Path, data: Path, config: str):
        self.folder, self._data, self._config = folder, data, config

    def run(self, command: str, *arguments: str, configs: Path) -> str:
        settings = [f"workspace={self.folder}", f"data.path={self._data}"]
        settings += ["data.pattern=span-{SPAN}/*.csv"]
        overrides = [word for each in settings for word in ("--set", each)]
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", command, "-c", self._config, *overrides, *arguments],
            cwd=PROJECT, env={**os.environ, "PIPELINE_CONFIGS": str(configs)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 3), done.stdout  # 3: a person has to look at the span
        print(self._config, command, done.stdout)
        return done.stdout

    def output(self, component: str, name: str, pipeline: str = "taxi-automated") -> Path:
        """The first output of a component."""
        found = (self.folder / "pipeline_root" / pipeline / component / name).iterdir()
        return min(found, key=lambda folder: int(folder.name))


def write_spans(folder: Path) -> None:
    """The taxi trips: four fifths in span 1, the others in span 2, each in ten files."""
    source = loading.in_package("", "package:tfx/examples/chicago_taxi_pipeline/data")
    head, *rows = (source / "big_tipper_label" / "data.csv").read_text().splitlines()
    of_span = {1: rows[: len(rows) * 4 // 5], 2: rows[len(rows) * 4 // 5 :]}
    for span, mine in of_span.items():
        (folder / f"span-{span}").mkdir(parents=True)
        for number in range(FILES):
            text = "\n".join([head, *mine[number::FILES]]) + "\n"
            (folder / f"span-{span}" / f"{number}.csv").write_text(text)


@pytest.fixture(scope="module")
def flink() -> Iterator[None]:
    cluster.stop()
    cluster.start(print)
    yield
    assert cluster.stop()
    assert cluster.processes() == []
    assert not (cluster.FOLDER / "run").exists()


@pytest.fixture(scope="module")
def places(flink: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Place]:
    """The same commands here and on Flink: a training, a span judged, its rows predicted."""
    folder = tmp_path_factory.mktemp("places")
    configs = folder / "configs"
    shutil.copytree(PROJECT / "tests" / "taxi", configs)
    shutil.copy(PROJECT / "configs" / "flink.yaml", configs)
    data = folder / "data"
    write_spans(data)
    (data / "span-2").rename(data / "later")
    made = Place(folder / "here", data, "automated"), Place(folder / "flink", data, "flink")
    for place in made:
        place.run("run", configs=configs)
    (data / "later").rename(data / "span-2")
    for place in made:
        place.run("continued-evaluation", configs=configs)
        output = ["--output", str(place.folder / "predicted"), "--input", str(data / "span-2")]
        place.run("batch-predict", *output, configs=configs)
    return made


def same(places: tuple[Place, Place], of: Callable[[Place], Any]) -> Any:
    here, there = map(of, places)
    assert here == there
    return here


def rows(folder: Path) -> collections.Counter[str]:
    """The examples of a folder in any order, their features in the order of the names."""
    found = collections.Counter[str]()
    for record in tf.data.TFRecordDataset(sorted(map(str, folder.glob("*.gz"))), "GZIP"):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        found[str(sorted((name, str(value)) for name, value in features.items()))] += 1
    return found


@pytest.mark.parametrize("split", ["train", "eval", "test"])
def test_the_same_rows_are_in_each_split(places: tuple[Place, Place], split: str) -> None:
    found = same(places, lambda p: rows(p.output("ExampleGen", "examples") / f"Split-{split}"))
    assert sum(found.values()) > 1000


def test_vocabularies_and_transformed_rows_are_the_same(places: tuple[Place, Place]) -> None:
    def vocabularies(place: Place) -> dict[str, bytes]:
        assets = place.output("Transform", "transform_graph") / "transform_fn" / "assets"
        return {file.name: file.read_bytes() for file in assets.iterdir()}

    assert len(same(places, vocabularies)) > 3
    for split in ("train", "eval"):
        where = f"Split-{split}"
        same(places, lambda p: rows(p.output("Transform", "transformed_examples") / where))  # noqa: B023


def test_the_weights_are_the_same_to_the_bit(places: tuple[Place, Place]) -> None:
    def weights(place: Place) -> dict[str, bytes]:
        (folder,) = place.output("Trainer", "model").glob("**/variables")
        reader = tf.train.load_checkpoint(str(folder / "variables"))
        names = reader.get_variable_to_shape_map()
        return {
            name: np.asarray(reader.get_tensor(name)).tobytes()
            for name in names
            if not name.startswith("_CHECKPOINTABLE")
        }

    assert len(same(places, weights)) > 10


@pytest.mark.parametrize(
    ("pipeline", "margin"),
    # A prediction is float32, whose last bit depends on how many rows it shares a batch with: the
    # log_loss of a slice of 100 rows shows that.
    [("taxi-automated", 1e-9), ("taxi-automated-continued-evaluation", 1e-8)],
)
def test_metrics_are_the_same(places: tuple[Place, Place], pipeline: str, margin: float) -> None:
    def metrics(place: Place) -> Any:
        return json.loads(
            (place.output("Evaluator", "evaluation", pipeline) / "metrics.json").read_text()
        )

    here, there = (dict(numbers(metrics(place))) for place in places)
    assert here.keys() == there.keys()
    assert len(here) > 100
    for is_interval in (False, True):  # of a difference of two models in 20 parts of a slice
        one, other = (
            {at: value for at, value in found.items() if at.startswith("/intervals") == is_interval}
            for found in (here, there)
        )
        assert one == pytest.approx(other, rel=0, abs=max(margin, 1e-8 if is_interval else 0))


def numbers(value: Any, at: str = "") -> Iterator[tuple[str, float]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, found in inner:
        if isinstance(found, dict | list):
            yield from numbers(found, f"{at}/{key}")
        elif isinstance(found, int | float):
            yield f"{at}/{key}", found


def test_predictions_are_the_same(places: tuple[Place, Place]) -> None:
    def predictions(place: Place) -> list[Any]:
        table = pyarrow.dataset.dataset(place.folder / "predicted" / "predictions").to_table()
        return sorted(map(str, table.to_pylist()))

    assert len(same(places, predictions)) == 3001


def on_flink(step: Callable[[int], int]) -> None:
    config = loading.load("flink", configs=PROJECT / "configs")
    with beam.Pipeline(options=PipelineOptions(config.beam.flags("ExampleGen"))) as pipeline:
        pipeline | beam.Create([1]) | beam.Reshuffle() | beam.Map(step)


def states() -> list[str]:
    jobs = runner.ask(f"{REST}/jobs/overview")["jobs"]
    return [job["state"] for job in sorted(jobs, key=lambda job: -job["start-time"])]


def test_a_stop_arrives_whole_and_is_not_repeated(flink: None) -> None:
    began = time.monotonic()
    with pytest.raises(PipelineStop) as raised:
        on_flink(steps.stop)
    assert str(raised.value) == steps.WORDS
    assert states()[0] == "CANCELED"
    assert time.monotonic() - began < 120


def test_an_interrupt_cancels_the_job(flink: None) -> None:
    def interrupt() -> None:
        while states()[:1] != ["RUNNING"] or len(states()) == before:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    # A test run in the background ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = len(states())
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        on_flink(steps.sleep)
    assert states()[0] == "CANCELED"
