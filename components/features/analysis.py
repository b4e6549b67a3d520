"""Passes over the training rows that learn what the feature table's Transform needs.

tf.Transform's own analyzers cost about a second each to set up, whatever the data's size, and a
table has dozens. These are two for all columns together, `ptransform_analyzer`s on any Beam runner:
one combines moments and quantile sketches of the numbers, one counts the values of the categories.
https://www.tensorflow.org/tfx/transform/api_docs/python/tft/experimental/ptransform_analyzer
"""

import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue
from tfx_bsl import sketches

_QUANTILE_ERROR = 0.001
_QUANTILES = 1000
"""From which edges are taken."""
_MAX_VALUES = 1 << 32
_COUNTED = pa.schema([("number", pa.int64()), ("value", pa.binary()), ("rows", pa.int64())])
"""How often a value is in the column of a plan."""


@dataclass(frozen=True)
class VocabularyPlan:
    """How one vocabulary is cut, and the name of its file."""

    file: str
    top_k: int | None
    min_count: int | None


@dataclass(frozen=True)
class RangePlan:
    """How the range of one numeric column is cut."""

    buckets: int
    edges: bool = False
    """Not the inner quantiles of equally many rows each, but `buckets + 1` different values."""

    @property
    def size(self) -> int:
        """How many numbers the cuts are."""
        return self.buckets + 1 if self.edges else self.buckets - 1


def learn_numbers(
    numbers: Sequence[tf.Tensor], ranges: Sequence[tuple[tf.Tensor, RangePlan]]
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Learns moments, and where ranges are cut, in one pass.

    Args:
      numbers: float32 [batch] columns for moments, NaN where missing.
      ranges: float32 [batch] columns, NaN where missing, with how each is cut.

    Returns:
      float32 [columns, 4], the numbers first: mean, standard deviation, minimum, maximum; and for
      each of the ranges its cuts, float32 [size of the plan].
    """
    if not numbers and not ranges:
        return tf.zeros([0, 4]), []
    sizes = [plan.size for _, plan in ranges]
    columns = [*numbers, *(column for column, _ in ranges)]
    moments, cuts = tft.experimental.ptransform_analyzer(
        [tf.stack(columns, axis=1)],
        _LearnNumbers(len(columns), [plan for _, plan in ranges]),
        output_dtypes=[tf.float32, tf.float32],
        output_shapes=[[len(columns), 4], [sum(sizes) + 1]],
    )
    return moments, tf.split(cuts, [*sizes, 1])[:-1]


def learn_vocabularies(
    texts: Sequence[tf.Tensor], plans: Sequence[VocabularyPlan]
) -> Sequence[tf.Tensor]:
    """Learns all vocabularies in one pass.

    Args:
      texts: string [batch] columns, "" where missing.
      plans: one for each.

    Returns:
      The path of each vocabulary's file, string scalars; most frequent value first.
    """
    if not plans:
        return []
    return tft.experimental.ptransform_analyzer(
        list(texts),
        _LearnVocabularies(list(plans)),
        output_dtypes=[tf.string] * len(plans),
        output_shapes=[[]] * len(plans),
        output_asset_default_values=[b"not yet learned"] * len(plans),
    )


@dataclass
class _Numbers:
    """What is known of the numeric columns so far."""

    moments: np.ndarray
    """float64 [columns, 5]: count, sum, sum of squared deviations, minimum, maximum."""
    sketch: Any


class _NumbersFn(beam.CombineFn):
    """Combines float32 [batch, columns]; quantiles of the last `num_ranges` columns only."""

    def __init__(self, num_columns: int, num_ranges: int):
        self._num_columns, self._num_ranges = num_columns, num_ranges

    def create_accumulator(self) -> _Numbers:
        empty = np.tile([0.0, 0.0, 0.0, np.inf, -np.inf], (self._num_columns, 1))
        streams = max(1, self._num_ranges)
        return _Numbers(empty, sketches.QuantilesSketch(_QUANTILE_ERROR, _MAX_VALUES, streams))

    def add_input(self, accumulator: _Numbers, batch: tuple[np.ndarray]) -> _Numbers:
        values: np.ndarray = batch[0].astype(np.float64)
        values[~np.isfinite(values)] = np.nan
        accumulator.moments = _merged(accumulator.moments, _moments(values))
        ranges = np.ascontiguousarray(values[:, values.shape[1] - self._num_ranges :]).reshape(-1)
        accumulator.sketch.AddValues(pa.array(ranges, mask=np.isnan(ranges)))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Numbers]) -> _Numbers:
        merged = self.create_accumulator()
        for other in accumulators:
            merged.moments = _merged(merged.moments, other.moments)
            merged.sketch.Merge(other.sketch)
        return merged

    def extract_output(self, accumulator: _Numbers) -> _Numbers:
        return accumulator


def _moments(values: np.ndarray) -> np.ndarray:
    """Count, sum, squared deviations, minimum and maximum of each column, NaN left out."""
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    total = np.where(present, values, 0.0).sum(axis=0)
    mean = total / np.maximum(count, 1)
    squares = np.where(present, (values - mean) ** 2, 0.0).sum(axis=0)
    low = np.where(present, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(present, values, -np.inf).max(axis=0, initial=-np.inf)
    return np.stack([count, total, squares, low, high], axis=1)


def _merged(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two sets of moments as one (Chan, Golub and LeVeque 1983, for the squared deviations)."""
    count, total = a[:, 0] + b[:, 0], a[:, 1] + b[:, 1]
    means = [m[:, 1] / np.maximum(m[:, 0], 1) for m in (a, b)]
    between = (means[0] - means[1]) ** 2 * a[:, 0] * b[:, 0] / np.maximum(count, 1)
    low, high = np.minimum(a[:, 3], b[:, 3]), np.maximum(a[:, 4], b[:, 4])
    return np.stack([count, total, a[:, 2] + b[:, 2] + between, low, high], axis=1)


class _LearnNumbers(beam.PTransform):
    """Batches of float32 [batch, columns] -> moments, and the cuts of all ranges."""

    def __init__(self, num_columns: int, plans: list[RangePlan]):
        super().__init__()
        self._num_columns, self._plans = num_columns, plans

    def expand(self, batches: Any) -> tuple[Any, Any]:
        combine = _NumbersFn(self._num_columns, len(self._plans))
        learned = batches | "Combine" >> beam.CombineGlobally(combine)
        return (
            learned | "Moments" >> beam.Map(lambda numbers: _final_moments(numbers.moments)),
            learned | "Cuts" >> beam.Map(_cuts, self._plans),
        )


def _final_moments(moments: np.ndarray) -> np.ndarray:
    count = np.maximum(moments[:, 0], 1)
    final = [moments[:, 1] / count, np.sqrt(moments[:, 2] / count), moments[:, 3], moments[:, 4]]
    return np.nan_to_num(np.stack(final, axis=1), posinf=0.0, neginf=0.0).astype(np.float32)


def _cuts(numbers: _Numbers, plans: list[RangePlan]) -> np.ndarray:
    """All cuts one behind the other, and a zero: the analyzer's output must have one."""
    counts = {_QUANTILES if plan.edges else plan.buckets for plan in plans}
    found = {count: numbers.sketch.GetQuantiles(count).to_pylist() for count in counts}
    cuts: list[float] = []
    for column, plan in enumerate(plans):
        count = _QUANTILES if plan.edges else plan.buckets
        quantiles = np.array(found[count][column], np.float32)
        if np.isnan(quantiles).any():
            cuts += [0.0] * plan.size
        else:
            cuts += list(_edges(quantiles, plan.buckets) if plan.edges else quantiles[1:-1])
    return np.array([*cuts, 0.0], dtype=np.float32)


def _edges(quantiles: np.ndarray, bins: int) -> np.ndarray:
    """Up to `bins + 1` of the different quantiles; the highest is repeated where there are fewer.

    Of different ones: else a value that most rows share takes most of the edges.
    """
    different = np.unique(quantiles)
    count = min(bins + 1, len(different))
    chosen = different[np.round(np.linspace(0, len(different) - 1, count)).astype(int)]
    return np.pad(chosen, (0, bins + 1 - count), mode="edge")


class _Count(beam.DoFn):
    """Batches of string columns -> Parquet files of `_COUNTED`.

    No more than `most` different values are in memory, and those of a batch.
    """

    def __init__(self, num_columns: int, folder: str, most: int = 1 << 20):
        self._num_columns, self._folder, self._most = num_columns, folder, most

    def start_bundle(self) -> None:
        self._counts: list[Counter[bytes]] = [Counter() for _ in range(self._num_columns)]

    def process(self, batch: Sequence[np.ndarray]) -> Iterator[str]:
        for counts, column in zip(self._counts, batch, strict=True):
            found = pc.value_counts(pa.array(column, pa.binary()))
            counts.update(dict(zip(*(part.to_pylist() for part in found.flatten()), strict=True)))
        if sum(map(len, self._counts)) > self._most:
            yield self._written()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield GlobalWindows.windowed_value(self._written())

    def _written(self) -> str:
        columns: np.ndarray = np.repeat(
            range(self._num_columns), [len(counts) for counts in self._counts]
        )
        values = [value for counts in self._counts for value in counts]
        rows = [count for counts in self._counts for count in counts.values()]
        tf.io.gfile.makedirs(self._folder)
        path = os.path.join(self._folder, f"counted-{uuid.uuid4().hex}.parquet")
        content = pa.BufferOutputStream()
        pq.write_table(pa.table([columns, values, rows], _COUNTED), content)
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(content.getvalue().to_pybytes())
        self.start_bundle()
        return path


class _LearnVocabularies(tft_beam.experimental.PTransformAnalyzer):
    """Batches of string columns -> the path of a vocabulary file for each."""

    def __init__(self, plans: list[VocabularyPlan]):
        super().__init__()
        self._plans = plans

    def expand(self, batches: Any) -> tuple[Any, ...]:
        folder = self.base_temp_dir
        counted = batches | "Count" >> beam.ParDo(_Count(len(self._plans), folder))
        gathered = counted | "Gather" >> beam.combiners.ToList()
        paths = gathered | "Write" >> beam.FlatMap(
            _write_vocabularies, self._plans, folder
        ).with_outputs(*(plan.file for plan in self._plans))
        return tuple(paths[plan.file] for plan in self._plans)


def _write_vocabularies(
    counted: list[str], plans: list[VocabularyPlan], folder: str
) -> Iterator[beam.pvalue.TaggedOutput]:
    with ExitStack() as stack:
        paths = [os.path.join(folder, plan.file) for plan in plans]
        files = [stack.enter_context(tf.io.gfile.GFile(path, "wb")) for path in paths]
        for number, value in vocabularies(counted, plans):
            files[number].write(value + b"\n")
    for plan, path in zip(plans, paths, strict=True):
        yield beam.pvalue.TaggedOutput(plan.file, np.array(path.encode(), dtype=object))


def vocabularies(
    counted: Sequence[str], plans: Sequence[VocabularyPlan]
) -> Iterator[tuple[int, bytes]]:
    """Yields the values kept with the numbers of their plans, most frequent first.

    Equal counts are in the order of their bytes. Missing values ("") and values with line breaks
    are left out, as in tf.Transform. A column without values gets one that no data holds. What is
    beyond a gigabyte is sorted on disk.

    Args:
      counted: files of `_COUNTED`; a value may be in several.
      plans: one for each column.
    """
    from components.ingest.rows import connect  # DuckDB, which only this needs

    kept = ", ".join(
        f"({number}, {plan.min_count or 1}, {plan.top_k or _MAX_VALUES})"
        for number, plan in enumerate(plans)
    )
    empty = {*range(len(plans))}
    with TemporaryDirectory() as folder, connect([], folder) as connection:
        connection.register("counted", pa.RecordBatchReader.from_batches(_COUNTED, _read(counted)))
        found = connection.sql(
            f"WITH plans(number, least, most) AS (VALUES {kept}), "
            "summed AS (SELECT number, value, sum(rows) AS rows FROM counted GROUP BY ALL) "
            "SELECT number, value FROM summed JOIN plans USING (number) WHERE rows >= least "
            "QUALIFY row_number() OVER (PARTITION BY number ORDER BY rows DESC, value) <= most "
            "ORDER BY number, rows DESC, value"
        )
        for batch in found.to_arrow_reader():
            numbers, values = (column.to_pylist() for column in batch.columns)
            empty -= {*numbers}
            yield from zip(numbers, values, strict=True)
    yield from ((number, b"\x00") for number in sorted(empty))


def _read(counted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for path in counted:
        with tf.io.gfile.GFile(path, "rb") as file:
            table = pq.read_table(pa.BufferReader(file.read()))
        is_kept = [bool(v) and not {10, 13} & set(v) for v in table["value"].to_pylist()]
        yield from table.filter(pa.array(is_kept, pa.bool_())).to_batches()
