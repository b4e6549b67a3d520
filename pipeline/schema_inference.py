"""Infers a schema from the data, or widens the curated one to fit it."""

import itertools
import logging
from pathlib import Path

import pyarrow as pa
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from rich.console import Console
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components import files
from components.ingest.batches import as_lists
from components.ingest.query import sample
from components.ingest.settings import CsvFormat, Query
from components.ingest.spans import resolve
from pipeline import loading, schema
from pipeline.graph import query_of
from pipeline.telling import make

_MAX_CATEGORIES = 100
"""A text column with more values than this gets no list of allowed values."""
_MAX_ROWS = 1_000_000
_NEARLY_EMPTY = 0.1
_CSV = CsvFormat()


def proposed_schema(
    files: list[Path],
    curated: schema_pb2.Schema | None,
    csv: CsvFormat = _CSV,
    query: Query | None = None,
) -> schema_pb2.Schema:
    """The schema that accepts these files.

    Args:
      files: CSV files with a header, or Parquet files.
      curated: the schema there is; it is widened where the data needs it, else kept.
      csv: how the CSV files are written.
      query: what the rows are put through; the schema is its result's.

    Raises:
      PipelineStop: no files, or a file that cannot be read.
    """
    paths = [str(file) for file in files]
    return fitting_schema(sample(paths, csv, _MAX_ROWS, query), curated)


def fitting_schema(table: pa.Table, curated: schema_pb2.Schema | None = None) -> schema_pb2.Schema:
    """The schema that accepts these rows: the curated one, widened where needed, or a new one."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    statistics = _statistics(table)
    if curated is not None:
        return tfdv.update_schema(curated, statistics, max_string_domain_size=_MAX_CATEGORIES)
    inferred = tfdv.infer_schema(
        statistics, infer_feature_shape=False, max_string_domain_size=_MAX_CATEGORIES
    )
    _expect_half_of_what_is_there(inferred, statistics)
    return inferred


def _expect_half_of_what_is_there(
    schema: schema_pb2.Schema, statistics: statistics_pb2.DatasetFeatureStatisticsList
) -> None:
    """A column with gaps must stay at least half as full; a nearly empty one may be empty."""
    dataset = statistics.datasets[0]
    present = {
        f.path.step[0]: (f.num_stats if f.HasField("num_stats") else f.string_stats).common_stats
        for f in dataset.features
    }
    for feature in schema.feature:
        if feature.presence.min_fraction == 1 or feature.name not in present:
            continue
        fraction = present[feature.name].num_non_missing / dataset.num_examples
        feature.ClearField("presence")
        if fraction >= _NEARLY_EMPTY:
            feature.presence.min_fraction = round(fraction / 2, 2)


def _statistics(table: pa.Table) -> statistics_pb2.DatasetFeatureStatisticsList:
    return stats_impl.generate_statistics_in_memory(
        as_lists(table.combine_chunks().to_batches()[0]),
        tfdv.StatsOptions(num_top_values=_MAX_CATEGORIES, num_rank_histogram_buckets=1000),
    )


def main(config_name: str, overrides: list[str], write: bool, console: Console) -> int:
    """`python -m pipeline schema`: prints the differences, and writes the file when told to.

    Raises:
      PipelineStop: no data, a file that cannot be read, or a schema that cannot be parsed.
    """
    config = loading.load(config_name, overrides)
    path = loading.PROJECT / config.schema_file
    curated = schema.read_schema(path) if path.is_file() else None
    inputs = resolve(str(loading.data_folder(config)), config.data.pattern, config.data.spans)
    paths = [Path(file) for file in inputs.files]
    proposed = proposed_schema(paths, curated, config.data.csv, query_of(config))
    changes = schema.diff(curated, proposed)
    if not changes:
        console.print(f"{config.schema_file} fits the data; nothing to change.")
        return 0
    console.print("\n".join(changes), markup=False)
    if not write:
        command = make("schema", config_name, "WRITE=1")
        console.print(f"\nNothing written. To write {config.schema_file}: {command}")
        return 0
    _replace(path, curated, proposed)
    command = make("run-local", config_name)
    console.print(f"\nWrote {config.schema_file}. Review it (git diff), then: {command}")
    return 0


def _replace(path: Path, curated: schema_pb2.Schema | None, proposed: schema_pb2.Schema) -> None:
    """Writes the file by rename; the comment at its head stays."""
    head = ""
    if curated is not None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        head = "".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(str(path), head + text_format.MessageToString(proposed))
