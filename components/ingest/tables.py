"""The first rows of files as one table: what a schema and a proposal are made from."""

import pyarrow as pa

from components.errors import PipelineStop
from components.ingest.rows import Columns, Wanted, tables
from components.ingest.settings import CsvFormat


def read_table(files: list[str], csv: CsvFormat, max_rows: int) -> pa.Table:
    """Reads the first rows of some files, with the types that they show.

    Args:
        files: Their paths.
        csv: How those of CSV and JSON are written.
        max_rows: At most so many rows, of all files together.

    Returns:
        Columns in the order of the first file: int64, float64 or string; rows with another number
        of fields than the header are left out.

    Raises:
        PipelineStop: If a file can't be read, has no rows, no usable header, or other columns than
            the first.
    """
    if mistakes := [f"{'.'.join(path)} {message}" for path, message in csv.problems()]:
        raise PipelineStop(f"data.csv is wrong: {'; '.join(mistakes)}.")
    if not files:
        raise PipelineStop("There are no data files; see data.path and data.pattern.")
    with tables(files, csv) as reader:
        kinds: dict[str, Wanted] = {
            name: "DOUBLE" if kind == "FLOAT" else kind
            for name, kind in reader.kinds(files, max_rows).items()
        }
        columns = Columns(kinds)
        batches: list[pa.RecordBatch] = []
        left = max_rows
        for file in files:
            if left > 0:
                reading = reader.read(file, columns, limit=left)
                batches += [_with_texts(batch) for batch in reading]
                left -= reading.seen
        return pa.Table.from_batches(batches)


def _with_texts(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [c.cast(pa.string()) if pa.types.is_binary(c.type) else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)
