"""ArrowExampleGen: the component that turns files of rows into split TFRecords of tf.Examples.

driver:   the files of all spans wanted, and their fingerprint, into the cache's key
Beam:     a file a work item, or a span if the query needs it whole: rows, split, shards
executor: what came of all of them, checked, named and described
"""

import dataclasses
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
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
_EARLY = 10_000
"""Bad rows of a file after which their share tells something, before all is read."""
Item = tuple[int, list[str], bool]
"""Its number, its files, and whether its test rows are used."""
Result = dict[str, Any]
"""Of an item: `shards`, and of its bad rows `bad`, `seen` (all rows), `reasons` (how many rows have
each), `first` (of each reason) and `lists`, files. Or `problem` alone.

What stops the run is a result and no exception: runners wrap exceptions beyond recognition, and
distributed ones try again first.
"""


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
        check_unchanged(base, inputs)
        if settings.query:
            query.check(inputs.newest[:1], settings.csv, _wanted(settings), settings.query)
        results = self._ingest(settings, inputs, parts)
        check_unchanged(base, inputs)
        bad = _bad_counts(results)
        if bad["rows"] > settings.bad_rows.at_most * bad["of"]:
            raise _too_many(bad, settings.bad_rows.at_most, results, examples.uri)
        shards = [Shard(*shard) for result in results for shard in result["shards"]]
        counts = _count_rows(shards, settings.splits)
        for split in settings.splits:
            folder = os.path.join(examples.uri, f"Split-{split}")
            _empty(folder)
            own = [shard for shard in shards if SPLITS[shard.group] == split]
            publish(own, os.path.join(folder, "data_tfrecord"))
        _publish_lists(results, os.path.join(examples.uri, QUARANTINE))
        fileio.rmtree(parts)
        told = {QUARANTINED: bad} if settings.quarantines else {}
        if len(inputs.spans) > 1:
            told["spans"] = _by_span(results, settings, inputs)
        with fileio.open(os.path.join(examples.uri, COUNTS_FILE), "w") as file:
            file.write(json.dumps(counts | told))
        describe(examples, counts, inputs.fingerprint)
        describe_spans(examples, inputs)
        if settings.quarantines:
            examples.set_int_custom_property("rows_quarantined", bad["rows"])

    def _ingest(self, settings: IngestSettings, inputs: Inputs, parts: str) -> list[Result]:
        fileio.makedirs(parts)
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
        return results


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
            PipelineStop: If the settings contradict each other.
        """
        if problems := [f"{'.'.join(path)} {message}" for path, message in settings.problems()]:
            raise PipelineStop(f"The ingest settings are wrong: {'; '.join(problems)}.")
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
    by_span = settings.query is not None and settings.query.over == "span"
    groups = inputs.by_span if by_span else [[file] for file in inputs.files]
    for number, files in enumerate(groups):
        yield number, files, settings.test_spans == "all" or files[0] in inputs.newest


def _times(item: Item, settings: IngestSettings) -> Iterator[Counts]:
    """Yields how many good rows have each time, batch by batch."""
    try:
        with query.used_rows(item[1], settings.csv, _wanted(settings), settings.query) as rows:
            for batch in rows:
                counted = pc.value_counts(batch[settings.time])
                times, counts = counted.field("values"), counted.field("counts")
                yield dict(zip(times.to_pylist(), counts.to_pylist(), strict=True))
    except PipelineStop:
        return  # The pass that writes the examples meets the same problem, and reports it.


def _ingested(item: Item, cuts: Cuts | None, settings: IngestSettings, folder: str) -> Result:
    number, files, is_tested = item
    keep = MOST_LISTED if settings.quarantines else SHOWN
    writer = ShardWriter(os.path.join(folder, f"{number:05d}"))
    try:
        with query.used_rows(files, settings.csv, _wanted(settings), settings.query, keep) as rows:
            for batch in filter(len, _checked(files[0], rows, settings)):
                chosen = sampled(batch, settings)
                splits = assign(chosen, settings.split, cuts)
                used = splits != TEST if not is_tested else np.ones(len(chosen), bool)
                if used.any() and (settings.quarantines or not rows.bad):
                    writer.write(as_lists(chosen.filter(pa.array(used))), splits[used])
        bad = _set_aside(rows, os.path.join(folder, f"{number:05d}-{uuid.uuid4().hex}.jsonl"))
        return {"number": number, "shards": writer.finish(f"{number:05d}"), **bad}
    except PipelineStop as stop:
        return {"number": number, "problem": str(stop)}


def _checked(file: str, rows: Reading, settings: IngestSettings) -> Iterator[pa.RecordBatch]:
    """Yields the good rows; stops at bad ones, or far more of them than are allowed, or no rows."""
    at_most = settings.bad_rows.at_most
    for batch in rows:
        too_many = min(10 * at_most, (1 + at_most) / 2) * rows.seen
        if settings.quarantines and rows.bad >= _EARLY and rows.bad > min(too_many, MOST_LISTED):
            examples = "\n".join(map(str, rows.bad_rows[:3]))
            raise PipelineStop(
                f"{file}: {rows.bad:,} of the first {rows.seen:,} rows are bad, and "
                f"data.bad_rows.at_most allows {at_most:.2%}; it was read no further. For example:"
                f"\n{examples}\nCorrect the data, or the columns' types in the schema."
            )
        yield batch
    if not settings.quarantines or not rows.seen:
        rows.check()


def _set_aside(rows: Reading, target: str) -> Result:
    """Writes the bad rows to a list, and returns what is said of them."""
    reasons, first = Counter[str](), dict[str, str]()
    for row in rows.bad_rows:
        reasons.update({*row.reasons})
        for reason, problem in zip(row.reasons, row.problems, strict=True):
            first.setdefault(reason, f"{row.file}, {row.place} {row.number}, {problem}")
    if rows.bad_rows:
        with fileio.open(target, "w") as file:
            file.write("".join(f"{row.as_json()}\n" for row in rows.bad_rows))
    lists = [target] if rows.bad_rows else []
    return {"bad": rows.bad, "seen": rows.seen, "reasons": reasons, "first": first, "lists": lists}


def _bad_counts(results: list[Result]) -> dict[str, Any]:
    """How many rows are bad, of how many, and the commonest reasons."""
    reasons: Counter[str] = Counter()
    for result in results:
        reasons.update(result["reasons"])
    return {
        "rows": sum(result["bad"] for result in results),
        "of": sum(result["seen"] for result in results),
        "reasons": dict(reasons.most_common(10)),
    }


def _too_many(
    counts: dict[str, Any], at_most: float, results: list[Result], uri: str
) -> PipelineStop:
    """The error about bad rows; keeps their lists, as TFX removes what a failing step made.

    They go to a numbered folder of the step, as its outputs are, so that `gc` finds it.
    """
    output, _, number = uri.rstrip("/").rpartition("/")
    folder = os.path.join(os.path.dirname(output), QUARANTINE, number)
    _publish_lists(results, folder)
    firsts = [result["first"] for result in reversed(results)]
    first = {reason: row for found in firsts for reason, row in found.items()}
    reasons = "\n".join(
        f"  {count:,} x {reason}; first: {first[reason]}"
        for reason, count in counts["reasons"].items()
    )
    bad, seen = counts["rows"], counts["of"]
    return PipelineStop(
        f"{bad:,} of {seen:,} rows are bad ({bad / seen:.2%}), and "
        f"data.bad_rows.at_most allows {at_most:.2%}:\n{reasons}\n"
        f"All of them, with the reasons: {folder}/*.jsonl\n"
        "Correct the data, or the columns' types in the schema, or raise data.bad_rows.at_most; "
        "then run again."
    )


def _publish_lists(results: list[Result], folder: str) -> None:
    """Moves the lists into `folder`, in the order of the files."""
    lists = [path for result in results for path in result["lists"]]
    if fileio.exists(folder):  # from an attempt that was cut short
        fileio.rmtree(folder)
    if lists:
        fileio.makedirs(folder)
    for number, path in enumerate(lists):
        fileio.rename(path, os.path.join(folder, f"rows-{number:05d}.jsonl"), overwrite=True)


def _empty(folder: str) -> None:
    """Makes a folder, without what an attempt that was cut short left there."""
    if fileio.exists(folder):
        fileio.rmtree(folder)
    fileio.makedirs(folder)


def _write(results: list[Result], path: str) -> None:
    with fileio.open(path, "w") as file:
        file.write(json.dumps(results))


def _count_rows(shards: list[Shard], splits: Sequence[str]) -> dict[str, int]:
    """The rows of each split, of which none may be empty."""
    counts = {split: sum(s.rows for s in shards if SPLITS[s.group] == split) for split in splits}
    if empty := [split for split in splits if not counts[split]]:
        raise PipelineStop(
            f"No row fell into the split {' or '.join(empty)}; the rows were {counts}. Use more "
            "rows (data.sample, data.spans), other fractions, or, if few keys or times are "
            "shared by many rows, another data.split.by."
        )
    return counts


def _by_span(
    results: list[Result], settings: IngestSettings, inputs: Inputs
) -> dict[str, dict[str, int]]:
    """The rows of each split by span."""
    span_of = {
        f: span for span, files in zip(inputs.spans, inputs.by_span, strict=True) for f in files
    }
    files_of = {number: files for number, files, _ in _items(settings, inputs)}
    counts = {str(span): dict.fromkeys(settings.splits, 0) for span in inputs.spans}
    for result in results:
        own = counts[str(span_of[files_of[result["number"]][0]])]
        for shard in (Shard(*shard) for shard in result["shards"]):
            own[SPLITS[shard.group]] += shard.rows
    return counts


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
