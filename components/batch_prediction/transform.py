"""The Beam side: items in, shards out, on any runner."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from components.batch_prediction import job as jobs
from components.batch_prediction.inputs import Item, Wanted
from components.batch_prediction.job import Job
from components.batch_prediction.prediction import Predicted, predict
from components.batch_prediction.reading import Block, block_starts, read
from components.batch_prediction.writing import (
    PREDICTIONS,
    REJECTED,
    block_name,
    count_rows,
    write_lines,
    write_shard,
)
from components.errors import PipelineStop
from components.inference import prediction_log
from components.inference.model import LoadedVersion
from components.inference.prediction_log import LogSettings

Counts = dict[str, Any]
"""{"rows", "rejected"} of a block that is predicted, {"problem"} of an item that can't be.

A problem is a result and no exception: runners wrap exceptions beyond recognition.
"""
PROGRESS = logging.getLogger("progress")


@dataclass(frozen=True)
class Place:
    """Where a job writes."""

    output: Path
    log: LogSettings
    log_folder: Path

    def shard(self, job: Job, name: str) -> Path:
        """A block's predictions."""
        return self.output / PREDICTIONS / f"{name}.{job.format}"

    def rejected(self, name: str) -> Path:
        """A block's rows that were set aside."""
        return self.output / REJECTED / f"{name}.jsonl"


class PredictItems(beam.PTransform):
    """Predicts items and writes shards; one JSON file tells what came of it."""

    def __init__(self, job: Job, wanted: Wanted, place: Place, report: Path):
        """Takes the job and where its shards and the list of counts go."""
        super().__init__()
        self._predict, self._report = _PredictItem(job, wanted, place), str(report)

    def expand(self, items: beam.PCollection) -> beam.PCollection:
        """Takes items."""
        return (
            items
            | "Distribute" >> beam.Reshuffle()
            | "Predict" >> beam.ParDo(self._predict)
            | "Gather" >> beam.combiners.ToList()
            | "Report" >> beam.Map(_write_json, self._report)
        )


class _PredictItem(beam.DoFn):
    """An item -> the counts of its blocks. A block whose shard is there is not done again."""

    def __init__(self, job: Job, wanted: Wanted, place: Place):
        super().__init__()
        self._job, self._wanted, self._place = job, wanted, place
        self._shared = Shared()

    def process(self, item: Item) -> Iterator[Counts]:
        """Yields what came of an item."""
        starts = [*block_starts(item)]
        try:
            if starts and all(self._shard(item, start).exists() for start in starts):
                yield from (self._counted(item, start) for start in starts)
                return
            for block in read(item):
                if not self._shard(item, block.first).exists():
                    self._do(item, block)
                yield self._counted(item, block.first)
        except PipelineStop as stop:
            yield {"problem": str(stop)}

    def _do(self, item: Item, block: Block) -> None:
        chosen = self._job.chosen
        # Held here, or it would be forgotten: Shared only remembers what somebody uses.
        self._version = self._shared.acquire(lambda: LoadedVersion(chosen), tag=str(chosen))
        found = predict(item, block, self._wanted, self._version)
        try:
            self._write(block_name(item.file, block.first), found)
        except OSError as error:
            raise PipelineStop(
                f"The predictions can't be written: {error}. Make room or correct the rights, then "
                "run again: what is there stays."
            ) from error
        last = block.first - 1 + len(block.rows) + len(block.malformed)
        PROGRESS.info("%s: predicted up to row %s", item.name, f"{last:,}")

    def _write(self, name: str, found: Predicted) -> None:
        """The shard last: when it is there, the block is done."""
        job, place = self._job, self._place
        if not jobs.is_current(place.output, job.id):
            raise PipelineStop(f"{place.output} has been taken over by another run.")
        if place.log.enabled:
            self._write_log(f"batch-{job.id}-{name}", found)
        if found.rejected:
            write_lines(place.rejected(name), found.rejected)
        write_shard(place.shard(job, name), found.table)

    def _write_log(self, name: str, found: Predicted) -> None:
        job, place = self._job, self._place
        predicted = prediction_log.Predicted(
            version=job.version,
            microseconds=int(datetime.fromisoformat(job.started).timestamp() * 1e6),
            keys=found.table["key"].to_pylist(),
            columns=found.columns,
            predictions=found.predictions,
        )
        model = job.chosen.name
        prediction_log.write_named(place.log_folder, model, name, predicted, place.log)

    def _shard(self, item: Item, first: int) -> Path:
        return self._place.shard(self._job, block_name(item.file, first))

    def _counted(self, item: Item, first: int) -> Counts:
        rejected = self._place.rejected(block_name(item.file, first))
        return {"rows": count_rows(self._shard(item, first)), "rejected": count_rows(rejected)}


def _write_json(results: list[Counts], path: str) -> None:
    Path(path).write_text(json.dumps(results))
