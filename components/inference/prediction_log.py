"""The prediction log: what was predicted, when, by which version, and from which columns.

It is off by default. The server and batch prediction write Parquet files into
`<folder>/<model>/<YYYY-MM-DD>/` (the day in UTC); continued evaluation joins them with labels by
key. The columns of a file:

- key: string, null if the caller sent none; an integer key is its decimal text.
- version: int64, the same in the whole file, so that the file's columns are of one signature.
- time: timestamp[us, UTC], when the row was predicted.
- prediction: list<float32>. A list also where the model has one output, so that files of any
  problem have the same type.
- features: a struct of the columns that the version read, null where missing, without the excluded
  ones. It is not there if all are excluded.

A file appears whole, by a rename: what a killed process had not written yet is lost, at most
`seconds_per_file` of rows.
"""

import contextlib
import hashlib
import logging
import os
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, PositiveFloat

from components import files
from components.inference.columns import MISSING, Columns
from components.settings import Problem, Strict

_LOG = logging.getLogger(__name__)
QUEUE_ROWS = 50_000
"""So many rows may wait for the thread; more are dropped and counted."""
_ROWS_PER_FILE = 50_000
_TICK_SECONDS = 0.25
_SWEEP_AFTER_SECONDS = 3600
"""A temporary file lives as long as one write; one so old was left by a killed process."""
FULL, UNFIT, UNWRITTEN = "queue_full", "unfit_row", "file_unwritten"
"""Why rows are dropped: too many waited, the row itself, or its file could not be written."""


class LogSettings(Strict):
    """What of the predictions is logged."""

    enabled: bool = Field(False, description="Log predictions.")
    sample: float = Field(
        1.0,
        gt=0,
        le=1,
        description="The fraction of rows that is logged: by a hash of the key, so that the same "
        "keys are logged everywhere and always; at random for rows without one.",
    )
    exclude: list[str] = Field(default_factory=list, description="Columns that are not logged.")
    seconds_per_file: PositiveFloat = Field(
        60.0, description="A file is closed so long after its first row, or at 50,000 rows."
    )

    def problems(self, columns: Iterable[str]) -> Iterator[Problem]:
        """Yields excluded columns that are not logged anyway: a slip would log what must not be.

        Args:
            columns: Those that the model reads.
        """
        for name in sorted({*self.exclude} - {*columns}):
            yield ("exclude",), f"the model reads no column '{name}'; no other is logged"


class Predicted(NamedTuple):
    """Rows that one version predicted at one time."""

    version: int
    microseconds: int
    """Since 1970."""
    keys: Sequence[str | int | None] | None
    columns: Columns
    predictions: np.ndarray
    """float32 [rows, outputs]."""

    @property
    def place(self) -> tuple[str, int]:
        """Day and version: what the rows of one file share."""
        return datetime.fromtimestamp(self.microseconds / 1e6, UTC).date().isoformat(), self.version

    def row(self, number: int) -> "Predicted":
        """One of the rows, by itself."""
        one = slice(number, number + 1)
        return self._replace(
            keys=self.keys and self.keys[one],
            columns={name: values[one] for name, values in self.columns.items()},
            predictions=self.predictions[one],
        )


class PredictionLog:
    """Takes predictions without ever stopping the one who predicts, and writes them in a thread.

    To be made in the process that predicts: a thread does not survive a fork.
    """

    def __init__(self, folder: Path, model: str, settings: LogSettings):
        """Starts the thread, if the settings enable the log.

        Args:
            folder: `workspace/predictions`.
            model: The model's name in the registry.
            settings: What is logged.
        """
        self.written = 0
        """Rows in files that are there."""
        self.dropped: Counter[str] = Counter()
        """Rows that are in no file, by reason."""
        self._folder, self._settings = folder / model, settings
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._waiting: list[Predicted] = []
        self._waiting_rows = 0
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        if settings.enabled:
            self._thread.start()

    def add(
        self,
        version: int,
        keys: Sequence[str | int] | None,
        columns: Columns,
        predictions: np.ndarray,
    ) -> None:
        """Hands over predicted rows. Never blocks, never raises; the arrays must not change later.

        Args:
            version: That predicted.
            keys: Of the rows, [rows]; None without.
            columns: The checked columns that were predicted, [rows] each.
            predictions: float32 [rows, outputs].
        """
        if not self._settings.enabled:
            return
        predicted = Predicted(version, time.time_ns() // 1000, keys, columns, predictions)
        with self._lock:
            if self._waiting_rows + len(predictions) > QUEUE_ROWS or self._closed.is_set():
                self.dropped[FULL] += len(predictions)
            else:
                self._waiting.append(predicted)
                self._waiting_rows += len(predictions)

    def close(self, timeout: float = 30.0) -> None:
        """Writes what is there, and ends; what is added later is dropped.

        Args:
            timeout: Seconds to wait for a disk that hangs.
        """
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _work(self) -> None:
        """Makes tables of what waits, often, and files of the tables, now and then."""
        _sweep(self._folder)
        tables: defaultdict[tuple[str, int], list[pa.Table]] = defaultdict(list)
        closed, due = False, 0.0
        while not closed:
            closed = self._closed.wait(min(_TICK_SECONDS, self._settings.seconds_per_file))
            with self._lock:
                came, self._waiting, self._waiting_rows = self._waiting, [], 0
            if came and not tables:
                due = time.monotonic() + self._settings.seconds_per_file
            for place in {predicted.place for predicted in came}:
                tables[place] += self._tables([one for one in came if one.place == place])
            rows = sum(len(table) for found in tables.values() for table in found)
            if closed or rows >= _ROWS_PER_FILE or time.monotonic() >= due:
                for (day, version), found in tables.items():
                    self._write(day, version, found)
                tables.clear()

    def _tables(self, group: list[Predicted]) -> list[pa.Table]:
        """Rows as tables. If that fails, each half by itself, so that a bad row fails alone."""
        try:
            return [to_table(group, self._settings)]
        except Exception as error:
            rows = [item.row(n) for item in group for n in range(len(item.predictions))]
            if middle := len(rows) // 2:
                return [*self._tables(rows[:middle]), *self._tables(rows[middle:])]
            self._drop(UNFIT, 1, error)
            return []

    def _write(self, day: str, version: int, tables: list[pa.Table]) -> None:
        rows = sum(map(len, tables))
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"{now}-v{version}-{socket.gethostname()}-{os.getpid()}.parquet"
        try:
            if rows:
                write_file(self._folder / day / name, pa.concat_tables(tables))
            self.written += rows
        except Exception as error:  # whatever happens to the log, the server goes on
            self._drop(UNWRITTEN, rows, error)

    def _drop(self, reason: str, rows: int, error: Exception) -> None:
        """Counts rows, and logs the first error of its kind."""
        with self._lock:
            first = not self.dropped[reason]
            self.dropped[reason] += rows
        if first:
            text = "%s: predictions are not logged (%s): %s. Such rows are dropped and counted."
            _LOG.warning(text, self._folder, reason, error)


def write_named(
    folder: Path, model: str, name: str, predicted: Predicted, settings: LogSettings
) -> int:
    """Writes the log of rows at once, as a file that replaces the one of this name.

    Args:
        folder: `workspace/predictions`.
        model: The model's name in the registry.
        name: Of the file, without its ending.
        predicted: The rows; with their time they also say the day, a part of the path.
        settings: What is logged.

    Returns:
        How many rows the file has; there is none if the sample has none of them.

    Raises:
        OSError: If it cannot be written.
    """
    table = to_table([predicted], settings)
    if len(table):
        write_file(folder / model / predicted.place[0] / f"{name}.parquet", table)
    return len(table)


def to_table(items: Sequence[Predicted], settings: LogSettings) -> pa.Table:
    """The rows of the log's sample, of one version, as the columns of a file."""
    counts = [len(item.predictions) for item in items]
    keys = [key for item in items for key in item.keys or [None] * len(item.predictions)]
    names = [name for name in items[0].columns if name not in settings.exclude]
    features = [_feature(np.concatenate([item.columns[name] for item in items])) for name in names]
    predictions = np.concatenate([item.predictions for item in items]).astype(np.float32)
    offsets = np.arange(len(predictions) + 1, dtype=np.int32) * predictions.shape[1]
    times = pa.array(np.repeat([item.microseconds for item in items], counts))
    columns = {
        "key": pa.array([None if key is None else str(key) for key in keys], pa.string()),
        "version": pa.array(np.full(len(keys), items[0].version)),
        "time": times.cast(pa.timestamp("us", "UTC")),
        "prediction": pa.ListArray.from_arrays(pa.array(offsets), pa.array(predictions.ravel())),
    }
    if names:
        columns["features"] = pa.StructArray.from_arrays(features, names)
    table = pa.table(columns)
    return table if settings.sample == 1 else table.filter(_sampled(keys, settings.sample))


def _feature(values: np.ndarray) -> pa.Array:
    if values.dtype == np.float32:
        return pa.array(values, from_pandas=True)  # NaN as null
    if values.dtype == np.int64:
        return pa.array(values, mask=values == MISSING["INT"])
    binary = pa.array(values, pa.binary())
    filled = pc.if_else(pc.equal(pc.binary_length(binary), 0), None, binary)
    try:
        return filled.cast(pa.string())
    except pa.ArrowInvalid:  # tensors may hold bytes that are no text
        texts = [v and v.decode(errors="replace") for v in filled.to_pylist()]
        return pa.array(texts, pa.string())


def _sampled(keys: Sequence[str | int | None], fraction: float) -> pa.Array:
    """Which rows are in the sample.

    The hash is not the one that splits the data (`components.ingest.splitting`): the same one would
    draw the sample from one split.
    """
    drawn = np.random.default_rng().random(len(keys))
    for number, key in enumerate(keys):
        if key is not None:
            digest = hashlib.blake2b(str(key).encode(), digest_size=8).digest()
            drawn[number] = int.from_bytes(digest, "big") / 2**64
    return pa.array(drawn < fraction)


def write_file(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file, whole or not at all; its folder is made.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.new_file(str(path), ".part") as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _sweep(folder: Path) -> None:
    """Removes what killed processes left, on whatever machine they were."""
    for path in folder.glob(f"*/{files.TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _SWEEP_AFTER_SECONDS:
                path.unlink()
