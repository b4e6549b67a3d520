"""ArrowExampleGen: the component that turns files of rows into split TFRecords of tf.Examples.

driver:   the files of all spans wanted, and their fingerprint, into the cache's key
Beam:     a file a work item, or a span if the query needs it whole: rows, split, shards
executor: what came of all of them, checked, named and described
"""

import dataclasses
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import wrappers_pb2
from tfx import types
from tfx.components.example_gen import component, driver, utils
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types import standard_component_specs as specs
from tfx.utils import proto_utils

from components.errors import PipelineStop
from components.ingest import query
from components.ingest.batches import Shard, ShardWriter, as_lists, publish
from components.ingest.rows import MOST_LISTED, SHOWN, Columns, Reading
from components.ingest.settings import SPLITS, IngestSettings
from components.ingest.spans import Inputs, check_unchanged, resolve
from components.ingest.splitting import TEST, Counts, Cuts, assign, count_times, find_cuts, sampled

INPUTS_KEY = "inputs"
"""The execution property in which the driver leaves the files it found, as JSON."""
COUNTS_FILE, QUARANTINED = "counts.json", "quarantined"
"""The rows of each split, and beside their keys that of the bad rows."""
QUARANTINE = "quarantine"
"""The folder of the lists of bad rows."""
Result = dict[str, Any]
"""Of an item: its `number` and `span`, `shards`, and of its bad rows `bad`, `seen` (all rows),
`reasons` (how many rows have each, and the first one's problem) and `list`, a file or "". Or
`problem` in place of these.

What stops the run is a result and no exception: runners wrap exceptions beyond recognition, and
distributed ones try again first.
"""


class Item(NamedTuple):
    """What one worker reads: a file, or all files of a span."""

    number: int
    span: int
    files: list[str]
    is_tested: bool
    """Whether its test rows are used."""


class Driver(driver.FileBasedDriver):
    """Finds the files of all spans wanted; TFX's own driver reads one span."""

    def resolve_exec_properties(
        self, exec_properties: dict[str, Any], pipeline_info: Any, component_info: Any
    ) -> dict[str, Any]:
        """Adds files, span, version and fingerprint, so that TFX's cache key holds them."""
        inputs = read_inputs(exec_properties)
        exec_properties[INPUTS_KEY] = json.dumps(dataclasses.asdict(inputs), sort_keys=True)
        exec_properties[utils.SPAN_PROPERTY_NAME] = inputs.spans[-1]
        exec_properties[utils.VERSION_PROPERTY_NAME] = inputs.version
        exec_properties[utils.FINGERPRINT_PROPERTY_NAME] = inputs.fingerprint
        return exec_properties


class Executor(base_beam_executor.BaseBeamExecutor):
    """CSV, Parquet and JSON lines to gzipped TFRecords of tf.Examples, split."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Makes `examples`: the splits' folders, `counts.json`, and `quarantine/*.jsonl`.

        Raises:
            PipelineStop: If the data can't be used as it is.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings, inputs = read_settings(exec_properties), read_inputs(exec_properties)
        base = exec_properties[specs.INPUT_BASE_KEY]
        examples = artifact_utils.get_single_instance(output_dict[specs.EXAMPLES_KEY])
        parts = os.path.join(examples.uri, ".parts")
        if fileio.exists(examples.uri):  # with what an attempt that was cut short left there
            fileio.rmtree(examples.uri)
        fileio.makedirs(parts)  # at once: TFX removes the folder of a step that fails
        check_unchanged(base, inputs)
        if settings.query:
            query.check(inputs.newest[:1], settings.csv, _wanted(settings), settings.query)
        results = self._ingest(settings, inputs, parts)
        check_unchanged(base, inputs)
        told = _told(results, settings, inputs, examples.uri)
        shards = [shard for result in results for shard in result["shards"]]
        for split in settings.splits:
            prefix = os.path.join(examples.uri, f"Split-{split}", "data_tfrecord")
            fileio.makedirs(os.path.dirname(prefix))
            publish([shard for shard in shards if SPLITS[shard.group] == split], prefix)
        _publish_lists(results, os.path.join(examples.uri, QUARANTINE))
        fileio.rmtree(parts)
        _write(told, os.path.join(examples.uri, COUNTS_FILE))
        describe(examples, {split: told[split] for split in settings.splits}, inputs.fingerprint)
        describe_spans(examples, inputs)
        if settings.quarantines:
            examples.set_int_custom_property("rows_quarantined", told[QUARANTINED]["rows"])

    def _ingest(self, settings: IngestSettings, inputs: Inputs, parts: str) -> list[Result]:
        report = os.path.join(parts, "report.json")
        with self._make_beam_pipeline() as pipeline:
            items = pipeline | "Files" >> beam.Create([*_items(settings, inputs)])
            found = _ingest_files(items, settings, parts) | "Gather" >> beam.combiners.ToList()
            found | "Report" >> beam.Map(_write, report)
        with fileio.open(report) as file:
            results: list[Result] = sorted(json.loads(file.read()), key=lambda r: r["number"])
        if problems := sorted(result["problem"] for result in results if "problem" in result):
            more = len(problems) - 3
            rest = [f"{more} more files have problems."] if more > 0 else []
            raise PipelineStop("\n".join(problems[:3] + rest))
        return [{**r, "shards": [Shard(*shard) for shard in r["shards"]]} for r in results]


class ArrowExampleGen(component.FileBasedExampleGen):
    """Reads CSV, Parquet and JSON lines and writes split, gzipped TFRecords of tf.Examples.

    Output `examples`: a standard Examples artifact with the splits train, eval and test, the rows
    of each in `counts.json` and in its custom properties `rows_train`, `rows_eval`, `rows_test`,
    and all spans read in `spans` (JSON); `span` is the newest of them.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, input_base: str, pattern: str, settings: IngestSettings) -> None:
        """Builds the component.

        Args:
            input_base: The folder of the files.
            pattern: A glob below it, with {SPAN}, {VERSION}, or {YYYY}, {MM} and {DD} as in TFX.
            settings: All else. All of it is part of the cache key.

        Raises:
            PipelineStop: If the settings name columns that there are not.
        """
        if unknown := sorted({*settings.filled()} - {*settings.columns}):
            raise PipelineStop(
                f"The schema has no column {', '.join(unknown)}, which is the label, the key or a "
                f"column that splits. It has: {', '.join(settings.names())}. Correct the settings."
            )
        custom = example_gen_pb2.CustomConfig()
        custom.custom_config.Pack(wrappers_pb2.StringValue(value=settings.to_json()))
        super().__init__(
            input_base=input_base,
            input_config=utils.make_default_input_config(pattern),
            output_config=example_gen_pb2.Output(),
            custom_config=custom,
        )


def _ingest_files(items: Any, settings: IngestSettings, folder: str) -> Any:
    """Items -> what came of each; shards go to `folder`."""
    cuts = None
    if settings.time:
        times = items | "DistributeTimes" >> beam.Reshuffle() | beam.FlatMap(_times, settings)
        counts = times | "CountTimes" >> beam.CombineGlobally(count_times)
        cuts = beam.pvalue.AsSingleton(counts | "FindCuts" >> beam.Map(find_cuts, settings.split))
    ingested = beam.Map(_ingested, cuts, settings=settings, folder=folder)
    return items | "Distribute" >> beam.Reshuffle() | "Ingest" >> ingested


def _wanted(settings: IngestSettings) -> Columns:
    """The columns that come out of the rows, and what makes a row bad."""
    kinds = {name: settings.columns[name] for name in settings.names()}
    return Columns(kinds, settings.filled(), settings.label)


def _items(settings: IngestSettings, inputs: Inputs) -> Iterator[Item]:
    """Yields a work item for each file, or for each span if the query needs it whole."""
    spans = zip(inputs.by_span, inputs.spans, strict=True)
    groups = (
        [*spans]
        if settings.query is not None and settings.query.over == "span"
        else sorted(([file], span) for files, span in spans for file in files)
    )
    for number, (files, span) in enumerate(groups):
        is_tested = settings.test_spans == "all" or span == inputs.spans[-1]
        yield Item(number, span, files, is_tested)


def _times(item: Item, settings: IngestSettings) -> Iterator[Counts]:
    """Yields how many good rows have each time, batch by batch."""
    try:
        with query.used_rows(item.files, settings.csv, _wanted(settings), settings.query) as rows:
            for batch in rows:
                counted = pc.value_counts(batch[settings.time])
                times, counts = counted.field("values"), counted.field("counts")
                yield dict(zip(times.to_pylist(), counts.to_pylist(), strict=True))
    except PipelineStop:
        return  # The pass that writes the examples meets the same problem, and reports it.


def _ingested(item: Item, cuts: Cuts | None, settings: IngestSettings, folder: str) -> Result:
    keep = MOST_LISTED if settings.quarantines else SHOWN
    order, found = f"{item.number:05d}", {"number": item.number, "span": item.span}
    writer, wanted = ShardWriter(os.path.join(folder, order)), _wanted(settings)
    try:
        with query.used_rows(item.files, settings.csv, wanted, settings.query, keep) as rows:
            for batch in filter(len, rows):
                chosen = sampled(batch, settings)
                splits = assign(chosen, settings.split, cuts)
                used = (splits != TEST) | item.is_tested
                if used.any() and (settings.quarantines or not rows.bad):
                    writer.write(as_lists(chosen.filter(pa.array(used))), splits[used])
            if not settings.quarantines or not rows.seen:
                rows.check()
    except PipelineStop as stop:
        return {**found, "problem": str(stop)}
    return {**found, "shards": writer.finish(order), **_set_aside(rows, folder)}


def _set_aside(rows: Reading, folder: str) -> Result:
    """Writes the bad rows to a list, and returns what is said of them."""
    path, reasons = "", dict[str, list[Any]]()
    for row in rows.bad_rows:
        for reason, problem in row.problems.items():
            first = f"{row.file}, {row.place} {row.number}, {problem}"
            reasons.setdefault(reason, [0, first])[0] += 1
    if rows.bad_rows:
        path = os.path.join(folder, f"{uuid.uuid4().hex}.jsonl")
        with fileio.open(path, "w") as file:
            file.write("".join(f"{row.as_json()}\n" for row in rows.bad_rows))
    return {"bad": rows.bad, "seen": rows.seen, "reasons": reasons, "list": path}


def _told(
    results: list[Result], settings: IngestSettings, inputs: Inputs, uri: str
) -> dict[str, Any]:
    """The rows of each split, of each span and split, and the bad ones; of these all is written.

    Raises:
        PipelineStop: If too many rows are bad, or a split is empty.
    """
    bad, seen = (sum(result[key] for result in results) for key in ("bad", "seen"))
    reasons: dict[str, list[Any]] = {}
    for result in results:
        for reason, (count, first) in result["reasons"].items():
            reasons.setdefault(reason, [0, first])[0] += count
    commonest = dict(sorted(reasons.items(), key=lambda item: -item[1][0])[:10])
    if bad > settings.bad_rows.at_most * seen:
        raise _too_many(bad, seen, commonest, settings.bad_rows.at_most, results, uri)
    by_span = {str(span): dict.fromkeys(settings.splits, 0) for span in inputs.spans}
    for result in results:
        for shard in result["shards"]:
            by_span[str(result["span"])][SPLITS[shard.group]] += shard.rows
    told: dict[str, Any] = {s: sum(own[s] for own in by_span.values()) for s in settings.splits}
    if empty := [split for split in settings.splits if not told[split]]:
        raise PipelineStop(
            f"No row fell into the split {' or '.join(empty)}; the rows were {told}. Use more "
            "rows (data.sample, data.spans), other fractions, or, if few keys or times are "
            "shared by many rows, another data.split.by."
        )
    if settings.quarantines:
        counts = {reason: count for reason, (count, _) in commonest.items()}
        told[QUARANTINED] = {"rows": bad, "of": seen, "reasons": counts}
    if len(by_span) > 1:
        told["spans"] = by_span
    return told


def _too_many(
    bad: int,
    seen: int,
    reasons: dict[str, list[Any]],
    at_most: float,
    results: list[Result],
    uri: str,
) -> PipelineStop:
    """The error about bad rows; keeps their lists, as TFX removes what a failing step made.

    They go to a numbered folder of the step, as its outputs are, so that `gc` finds it.
    """
    output, _, number = uri.rstrip("/").rpartition("/")
    folder = os.path.join(os.path.dirname(output), QUARANTINE, number)
    _publish_lists(results, folder)
    told = "\n".join(
        f"  {n:,} x {reason}; first: {first}" for reason, (n, first) in reasons.items()
    )
    return PipelineStop(
        f"{bad:,} of {seen:,} rows are bad ({bad / seen:.2%}), and "
        f"data.bad_rows.at_most allows {at_most:.2%}:\n{told}\n"
        f"All of them, with the reasons: {folder}/*.jsonl\n"
        "Correct the data, or the columns' types in the schema, or raise data.bad_rows.at_most; "
        "then run again."
    )


def _publish_lists(results: list[Result], folder: str) -> None:
    """Moves the lists into `folder`, in the order of the files."""
    for number, path in enumerate(result["list"] for result in results if result["list"]):
        fileio.makedirs(folder)
        fileio.rename(path, os.path.join(folder, f"rows-{number:05d}.jsonl"), overwrite=True)


def _write(content: Any, path: str) -> None:
    with fileio.open(path, "w") as file:
        file.write(json.dumps(content))


def describe(examples: types.Artifact, counts: Mapping[str, int], fingerprint: str) -> None:
    """Sets splits, their rows and format, and the fingerprint of the files they were made from."""
    examples.split_names = artifact_utils.encode_split_names([*counts])
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    examples.set_string_custom_property(utils.FINGERPRINT_PROPERTY_NAME, fingerprint)
    for split, count in counts.items():
        examples.set_int_custom_property(f"rows_{split}", count)


def describe_spans(examples: types.Artifact, inputs: Inputs) -> None:
    """Sets the newest span and its version, and all spans besides."""
    examples.set_int_custom_property(utils.SPAN_PROPERTY_NAME, inputs.spans[-1])
    if inputs.version is not None:
        examples.set_int_custom_property(utils.VERSION_PROPERTY_NAME, inputs.version)
    examples.set_string_custom_property("spans", json.dumps(inputs.spans))


def read_settings(exec_properties: dict[str, Any]) -> IngestSettings:
    """The settings in the execution property `custom_config`."""
    config, text = example_gen_pb2.CustomConfig(), wrappers_pb2.StringValue()
    proto_utils.json_to_proto(exec_properties[specs.CUSTOM_CONFIG_KEY], config)
    config.custom_config.Unpack(text)
    return IngestSettings.model_validate_json(text.value)


def read_inputs(exec_properties: dict[str, Any]) -> Inputs:
    """The files that the driver found, or finds them: Kubeflow runs no driver of ours."""
    if INPUTS_KEY in exec_properties:
        return Inputs(**json.loads(exec_properties[INPUTS_KEY]))
    config = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties[specs.INPUT_CONFIG_KEY], config)
    settings, pattern = read_settings(exec_properties), config.splits[0].pattern
    others = settings.query.files() if settings.query else []
    return resolve(exec_properties[specs.INPUT_BASE_KEY], pattern, settings.spans, others)
