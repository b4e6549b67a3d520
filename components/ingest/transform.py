"""The Beam side: files in, shards out, one file a work item, on any runner."""

import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tfx.dsl.io import fileio

from components.errors import PipelineStop
from components.ingest.chronology import Counts, CountTimes, find_cuts
from components.ingest.problems import BadRow
from components.ingest.quarantine import Quarantine, Quarantined
from components.ingest.reading import read
from components.ingest.settings import IngestSettings
from components.ingest.splitting import TEST, Cuts, assign, sampled
from components.ingest.writing import Shard, ShardWriter

Result = dict[str, Any]
"""{'path', 'shards': [Shard, …], 'quarantined': Quarantined or None} of a file that was read,
{'path', 'problem'} of one that wasn't.

A file that stops the run is a result and no exception: runners wrap exceptions beyond recognition,
and distributed ones try again first.
"""


class IngestFiles(beam.PTransform):
    """Reads files and writes shards; one JSON file tells what came of it."""

    def __init__(self, settings: IngestSettings, folder: str, report: str) -> None:
        """Shards go to `folder`, the list of results to the file `report`."""
        super().__init__()
        self._settings = settings
        self._folder = folder
        self._report = report

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        """Takes (number, path, whether its test rows are used) of each file."""
        cuts = beam.pvalue.AsSingleton(self._cuts(files)) if self._settings.time else None
        return (
            files
            | "Distribute" >> beam.Reshuffle()
            | "Ingest" >> beam.ParDo(_Ingest(self._settings, self._folder), cuts)
            | "Gather" >> beam.combiners.ToList()
            | "Report" >> beam.Map(_write_json, self._report)
        )

    def _cuts(self, files: beam.PCollection) -> beam.PCollection:
        return (
            files
            | "DistributeTimes" >> beam.Reshuffle()
            | "ReadTimes" >> beam.ParDo(_ReadTimes(self._settings))
            | "CountTimes" >> beam.CombineGlobally(CountTimes())
            | "FindCuts" >> beam.Map(find_cuts, self._settings.split)
        )


class _ReadTimes(beam.DoFn):
    def __init__(self, settings: IngestSettings) -> None:
        super().__init__()
        self._settings = settings

    def process(self, file: tuple[int, str, bool]) -> Iterator[Counts]:
        """Yields how many rows have each time, batch by batch."""
        column = self._settings.time or ""
        try:
            for batch in self._read(file[1], column):
                counted = pc.value_counts(batch[column])
                times, counts = counted.field("values"), counted.field("counts")
                yield dict(zip(times.to_pylist(), counts.to_pylist(), strict=True))
        except PipelineStop:
            return  # The pass that reads all columns meets the same problem, and reports it.

    def _read(self, path: str, column: str) -> Iterator[pa.RecordBatch]:
        """The good rows: what makes one bad may stand in any column."""
        settings = self._settings
        return read(path, settings, [column], _ignore if settings.quarantines else None)


class _Ingest(beam.DoFn):
    def __init__(self, settings: IngestSettings, folder: str) -> None:
        super().__init__()
        self._settings = settings
        self._folder = folder

    def process(self, file: tuple[int, str, bool], cuts: Cuts | None) -> Iterator[Result]:
        """Yields what came of one file."""
        try:
            if self._settings.quarantines:
                target = os.path.join(self._folder, f"{file[0]:05d}-{uuid.uuid4().hex}.jsonl")
                with Quarantine(file[1], target) as quarantine:
                    shards, good = self._shards(file, cuts, quarantine)
                    found: Quarantined | None = quarantine.finish(good)
            else:
                shards, found = self._shards(file, cuts, None)[0], None
            yield {"path": file[1], "shards": shards, "quarantined": found}
        except PipelineStop as stop:
            yield {"path": file[1], "problem": str(stop)}

    def _shards(
        self, file: tuple[int, str, bool], cuts: Cuts | None, quarantine: Quarantine | None
    ) -> tuple[list[Shard], int]:
        """The shards, and how many good rows there were; the sample may have fewer."""
        number, path, is_tested = file
        good = 0
        with ShardWriter(self._folder, number) as writer:
            for batch in read(path, self._settings, set_aside=quarantine):
                good += len(batch)
                rows = sampled(batch, self._settings)
                splits = assign(rows, self._settings.split, cuts)
                used = splits != TEST if not is_tested else np.ones(len(rows), bool)
                if used.any():
                    writer.write(rows.filter(pa.array(used)), splits[used])
            return writer.finish(), good


def _ignore(row: BadRow) -> None:
    """The pass that writes the examples sets it aside."""


def _write_json(results: list[Result], path: str) -> None:
    with fileio.open(path, "w") as file:
        file.write(json.dumps(results))
