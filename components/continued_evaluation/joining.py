"""The Beam side of the join: files in, examples out, on any runner.

The join is a CoGroupByKey, so no worker holds more than a batch of rows and what it knows of one
key.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindows
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.continued_evaluation.reading import LabelColumns, Logged, read_labels, read_log
from components.errors import PipelineStop

REPORT = "report"
"""Where transforms put a `Report`, beside their rows."""
_REPORT_FILE = "report.json"
_TOLD = 3
Predicted = tuple[int, int, int, bytes, bool]
"""A prediction: its time, file and row, which order those of a key; its example, and whether that
has features. Where another version predicted, None stands in its place."""


@dataclass
class Report:
    """What came of some files or keys.

    A file that stops the run is a problem and no exception: runners wrap exceptions beyond
    recognition, and distributed ones try again first.
    """

    counts: Counter[str] = field(default_factory=Counter)
    """By field of `evidence.Joined`, and `rows`: all of the version that is judged."""
    columns: Counter[str] = field(default_factory=Counter)
    """In how many of these rows a column is logged."""
    digest: int = 0
    """Of the joined rows' keys, times and labels: below 2**64, the same in any order."""
    problems: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    """A key of each side, "log" and "labels", that the other side does not have."""

    def show(self, side: str, key: str) -> None:
        """Keeps the first key in order, so that it is the same every time."""
        self.keys[side] = min(key, self.keys.get(side, key))

    def columns_of_all(self) -> list[str]:
        """The columns that all rows have."""
        return sorted(name for name, rows in self.columns.items() if rows == self.counts["rows"])


def merge(reports: Iterable[Report]) -> Report:
    """Adds reports up."""
    total = Report()
    for report in reports:
        total.counts.update(report.counts)
        total.columns.update(report.columns)
        total.digest = (total.digest + report.digest) % 2**64
        total.problems += report.problems
        for side, key in report.keys.items():
            total.show(side, key)
    return total


def read_report(folder: Path) -> Report:
    """What `WriteExamples` wrote.

    Raises:
      PipelineStop: With the problems in it.
    """
    found = json.loads((folder / _REPORT_FILE).read_text())
    if problems := sorted(set(found["problems"])):
        more = len(problems) - _TOLD
        rest = [f"{more} more files have problems."] if more > 0 else []
        raise PipelineStop("\n".join(problems[:_TOLD] + rest))
    counts, columns = Counter(found.pop("counts")), Counter(found.pop("columns"))
    return Report(counts, columns, **found)


class LogReader(beam.DoFn):
    """A base: (number, path) of a file of the log -> rows, and a report."""

    def __init__(self, version: int, types: dict[str, str]):
        """Takes the version that is judged, and the schema's types."""
        super().__init__()
        self._version, self._types = version, types

    def setup(self) -> None:
        """Makes the encoder, which cannot be pickled."""
        self._encoder = RecordBatchToExamplesEncoder()

    def process(self, file: tuple[int, str]) -> Iterator[Any]:
        """Yields what `rows` makes of each batch."""
        report, row = Report(), 0
        try:
            for batch in read_log(file[1], self._version, self._types):
                if batch.version == self._version:
                    report.counts["rows"] += len(batch.keys)
                    report.columns.update(dict.fromkeys(batch.features, len(batch.keys)))
                yield from self.rows(batch, (file[0], row), report)
                row += len(batch.keys)
        except PipelineStop as stop:
            report.problems.append(str(stop))
        yield TaggedOutput(REPORT, report)

    def rows(self, batch: Logged, place: tuple[int, int], report: Report) -> Iterator[Any]:
        """Yields rows of a batch, which begins at (file, row); the report may be added to."""
        raise NotImplementedError


class _ReadKeyed(LogReader):
    """Yields (key, Predicted or None)."""

    def rows(self, batch: Logged, place: tuple[int, int], report: Report) -> Iterator[Any]:
        if batch.examples is None:
            report.counts["other_versions"] += len(batch.keys)
            yield from ((key, None) for key in batch.keys if key)
            return
        report.counts["without_key"] += batch.keys.count("")
        encoded = self._encoder.encode(batch.examples)
        for row, (key, time, example) in enumerate(
            zip(batch.keys, batch.times, encoded, strict=True)
        ):
            if key:
                yield key, (time, place[0], place[1] + row, example, bool(batch.features))


class _ReadLabels(beam.DoFn):
    """The path of a label file -> (key, label), and a report."""

    def __init__(self, columns: LabelColumns):
        super().__init__()
        self._columns = columns

    def process(self, path: str) -> Iterator[Any]:
        report = Report()
        try:
            for rows in read_labels(path, self._columns):
                report.counts.update(rows.left_out)
                yield from zip(rows.keys, rows.labels, strict=True)
        except PipelineStop as stop:
            report.problems.append(str(stop))
        yield TaggedOutput(REPORT, report)


class _Join(beam.DoFn):
    """(Key, its predictions and labels) -> an example with the label, or none; and a report."""

    def __init__(self, label: str, kind: str):
        super().__init__()
        self._label, self._kind = label, kind

    def start_bundle(self) -> None:
        self._report = Report()

    def process(self, element: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[bytes]:
        key, found = element
        counts = self._report.counts
        last, predicted = _last(found["predictions"], counts)
        label, labels, is_one = _only(found["labels"])
        if last is None:
            counts["labels_of_other_versions" if predicted else "foreign_labels"] += labels
            if labels:
                self._report.show("labels", key)
        elif labels and is_one:
            counts.update(joined=1, repeated_labels=labels - 1, without_features=int(not last[-1]))
            self._report.digest += _hash(key, last[0], label)
            yield _with_label(last[-2], self._label, self._kind, label)
        else:
            counts.update(unlabelled=1, conflicting_labels=labels)
            self._report.show("log", key)

    def finish_bundle(self) -> Iterator[Any]:
        yield TaggedOutput(REPORT, GlobalWindows.windowed_value(self._report))


def _last(rows: Iterable[Predicted | None], counts: Counter[str]) -> tuple[Predicted | None, bool]:
    """The judged version's last prediction, if any, and whether any version predicted."""
    last, predicted = None, False
    for row in rows:
        predicted = True
        if row is not None:
            counts["repeated_predictions"] += last is not None
            last = row if last is None else max(last, row)
    return last, predicted


def _only(labels: Iterable[Any]) -> tuple[Any, int, bool]:
    """The first label, how many there are, and whether all are the same."""
    first, count, is_one = None, 0, True
    for label in labels:
        first = label if count == 0 else first
        is_one &= label == first
        count += 1
    return first, count, is_one


def _hash(*values: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest())


def _with_label(example: bytes, name: str, kind: str, label: Any) -> bytes:
    made = tf.train.Example.FromString(example)
    feature = made.features.feature[name]
    lists = {"INT": feature.int64_list, "FLOAT": feature.float_list, "BYTES": feature.bytes_list}
    lists[kind].value.append(label)
    return made.SerializeToString()


class JoinFiles(beam.PTransform):
    """(Numbered log files, label files) -> (examples, reports)."""

    def __init__(
        self, version: int, types: dict[str, str], columns: LabelColumns, label: str
    ) -> None:
        """Takes what to read.

        Args:
          version: That is judged.
          types: The schema's type of each column.
          columns: Of the label files.
          label: The name that the label has in the examples.
        """
        super().__init__()
        self._read_log = _ReadKeyed(version, types)
        self._read_labels = _ReadLabels(columns)
        self._join = _Join(label, columns.kind)

    def expand(self, inputs: Any) -> Any:
        """Reads, groups by key, and joins."""
        log, labels = inputs
        log, log_reports = _read(log, "Log", self._read_log)
        labels, label_reports = _read(labels, "Labels", self._read_labels)
        joined = (
            {"predictions": log, "labels": labels}
            | "ByKey" >> beam.CoGroupByKey()
            | "Join" >> beam.ParDo(self._join).with_outputs(REPORT, main="rows")
        )
        reports = (log_reports, label_reports, joined[REPORT]) | "Reports" >> beam.Flatten()
        return joined["rows"], reports


class ReadFiles(beam.PTransform):
    """Numbered log files -> (examples, reports), with a `LogReader` of one's own."""

    def __init__(self, reader: LogReader):
        """Takes what makes examples of rows."""
        super().__init__()
        self._reader = reader

    def expand(self, files: Any) -> Any:
        """Reads."""
        return _read(files, "Log", self._reader)


def _read(files: Any, name: str, reader: beam.DoFn) -> tuple[Any, Any]:
    read = (
        files
        | f"Distribute{name}" >> beam.Reshuffle()
        | f"Read{name}" >> beam.ParDo(reader).with_outputs(REPORT, main="rows")
    )
    return read["rows"], read[REPORT]


class WriteExamples(beam.PTransform):
    """(Examples, reports) -> gzipped TFRecords in a folder of the split, and one report."""

    def __init__(self, folder: Path, split: str):
        """Takes the folder that both are written to; see `read_report`."""
        super().__init__()
        self._prefix = str(folder / f"Split-{split}" / "data_tfrecord")
        self._report = str(folder / _REPORT_FILE)

    def expand(self, inputs: Any) -> Any:
        """Writes."""
        rows, reports = inputs
        rows | "WriteRows" >> beam.io.WriteToTFRecord(self._prefix, file_name_suffix=".gz")
        return (
            reports
            | "Merge" >> beam.CombineGlobally(merge)
            | "WriteReport" >> beam.Map(_write_report, self._report)
        )


def _write_report(report: Report, path: str) -> None:
    Path(path).write_text(json.dumps(vars(report)))
