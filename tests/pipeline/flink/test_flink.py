"""Flink: what settings mean there, and how a run ends that cannot go on. The rest are proofs."""

import time
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from components.errors import PipelineStop
from pipeline import loading
from pipeline.flink import runner

ON_FLINK = ["beam.runner=FlinkRunner", "beam.workers=3"]
OPTIONS = "beam.options=[--job_endpoint=localhost:1, --flink_master=localhost:1]"


def flags(*overrides: str) -> list[str]:
    config = loading.load("automated", [*ON_FLINK, OPTIONS, *overrides])
    return config.beam.flags("Transform")


def test_the_flags_are_those_that_flink_needs_and_ones_own_win() -> None:
    given = PipelineOptions(flags("beam.options.1=--flink_master=localhost:2")).get_all_options()
    assert given["environment_type"] == "PROCESS"
    assert given["sdk_container_image"] == "unused"
    assert given["flink_master"] == "localhost:2"
    assert "--parallelism=3" in flags()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([OPTIONS, "beam.mode=multi_processing"], "beam.mode: is the FnApiRunner's"),
        (["beam.options=[--flink_master=localhost:1]"], "lacks --job_endpoint=HOST:PORT"),
        (["beam.options=[--job_endpoint=localhost:1]"], "lacks --flink_master=HOST:PORT"),
        (
            [OPTIONS, "beam.components={Transform: {runner: FlinkRunner}}"],
            "beam.components.Transform.options: lacks --job_endpoint",
        ),
    ],
)
def test_settings_that_mean_nothing_on_flink_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(PipelineStop, match=words):
        loading.load("automated", [*ON_FLINK, *overrides])


def test_a_cluster_that_is_not_there_is_told_within_ten_seconds() -> None:
    began = time.monotonic()
    with (
        pytest.raises(PipelineStop, match="No Flink answers at http://localhost:1,"),
        beam.Pipeline(options=PipelineOptions(flags())) as pipeline,
    ):
        pipeline | beam.Create([1])
    assert time.monotonic() - began < 10


RAISED = """\
org.apache.flink.util.SerializedThrowable: java.lang.Exception: The user defined 'close()' failed
\tat org.apache.flink.runtime.operators.BatchTask.run(BatchTask.java:516)
Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 4: Traceback:
  File "apache_beam/runners/common.py", line 1511, in process
components.errors.PipelineStop: Row 7 has no label.
Fix the data.

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/worker/sdk_worker.py", line 313, in _execute
{last} [while running 'Map(stop)']

\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient.handle(FnApiControlClient.java)
"""


def failures(last: str) -> list[dict[str, Any]]:
    return [{"stacktrace": RAISED.format(last=last), "exceptionName": "Exception"}]


def test_a_stop_is_found_whole_in_what_flink_tells() -> None:
    with pytest.raises(PipelineStop) as raised:
        runner._raise_stop(failures("components.errors.PipelineStop: Row 7 has no label.\nFix it."))
    assert str(raised.value) == "Row 7 has no label.\nFix it."


def test_of_other_failures_the_line_that_tells_most_is_shown() -> None:
    other = failures("ValueError: 7")
    assert runner.last_words(other[0]) == "ValueError: 7 [while running 'Map(stop)']"
    gone = "java.lang.Exception: x\n\tat a.b(C.java)\nCaused by: IOException: Process died\n\tat d"
    assert runner.last_words({"stacktrace": gone}) == "IOException: Process died"
