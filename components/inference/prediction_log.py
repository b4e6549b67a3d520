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
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, PositiveFloat, PositiveInt

from components.inference.columns import MISSING, Columns
from components.settings import Problem, Strict

_LOG = logging.getLogger(__name__)
TEMPORARY = ".tmp-"
"""How the names of files begin that are not whole yet."""
_SWEEP_AFTER_SECONDS = 3600
"""A temporary file lives as long as one write; one so old was left by a killed process."""
_TICK_SECONDS = 1.0


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
    rows_per_file: PositiveInt = Field(50_000, description="A file is closed at so many rows.")
    seconds_per_file: PositiveFloat = Field(
        60.0, description="A file is closed so long after its first row, however few it has."
    )
    queue_rows: PositiveInt = Field(
        20_000, description="So many rows may wait for being written; more are dropped, counted."
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
        self.dropped = 0
        """Rows that found the queue full or could not be written."""
        self._folder, self._settings = folder / model, settings
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._waiting: list[Predicted] = []
        self._waiting_rows = 0
        self._closing = not settings.enabled
        self._told = False
        self._open: dict[tuple[int, str], _OpenFile] = {}
        self._files = 0
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
        item = Predicted(version, time.time_ns() // 1000, keys, columns, predictions)
        rows = len(predictions)
        with self._lock:
            full = self._waiting_rows + rows > self._settings.queue_rows
            if full or self._closing:
                self.dropped += rows
            else:
                self._waiting.append(item)
                self._waiting_rows += rows
            hurry = 2 * self._waiting_rows > self._settings.queue_rows
        if hurry and not self._wake.is_set():
            self._wake.set()

    def close(self, timeout: float = 30.0) -> None:
        """Writes what is there, and ends; what is added later is dropped.

        Args:
            timeout: Seconds to wait for a disk that hangs.
        """
        with self._lock:
            self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _work(self) -> None:
        _sweep(self._folder)
        tick = min(_TICK_SECONDS, self._settings.seconds_per_file)
        closing = False
        while not closing:
            self._wake.wait(tick)
            self._wake.clear()
            with self._lock:
                items, self._waiting, self._waiting_rows = self._waiting, [], 0
                closing = self._closing
            self._collect(items)
            self._write_due(everything=closing)

    def _collect(self, items: list[Predicted]) -> None:
        """Converts what came, together: one conversion of many rows, not one a request."""
        grouped: dict[tuple[int, str], list[Predicted]] = {}
        for item in items:
            grouped.setdefault((item.version, _day(item.microseconds)), []).append(item)
        for place, group in grouped.items():
            with self._counting_failures(sum(len(item.predictions) for item in group)):
                table = to_table(group, self._settings)
                if len(table):
                    self._open.setdefault(place, _OpenFile()).add(table)

    def _write_due(self, everything: bool) -> None:
        limits = (self._settings.rows_per_file, self._settings.seconds_per_file)
        for place in [p for p, file in self._open.items() if everything or file.due(*limits)]:
            file = self._open.pop(place)
            with self._counting_failures(file.rows):
                write_file(self._folder / place[1] / self._new_name(place[0]), file.table())
                self.written += file.rows
                self._told = False

    def _new_name(self, version: int) -> str:
        self._files += 1
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return f"{now}-v{version}-{socket.gethostname()}-{os.getpid()}-{self._files}.parquet"

    @contextlib.contextmanager
    def _counting_failures(self, rows: int) -> Iterator[None]:
        """The log is not what the service is for: nothing that happens to it may end the thread."""
        try:
            yield
        except Exception as error:
            with self._lock:
                self.dropped += rows
            if not self._told:
                self._told = True
                _LOG.warning(
                    "%s: predictions are not logged: %s. They are dropped and counted until it "
                    "works again.",
                    self._folder,
                    error,
                )


class _OpenFile:
    """Rows in memory that will be one file."""

    def __init__(self) -> None:
        self.rows = 0
        self._tables: list[pa.Table] = []
        self._began = time.monotonic()

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        self.rows += len(table)

    def due(self, rows: int, seconds: float) -> bool:
        return self.rows >= rows or time.monotonic() - self._began >= seconds

    def table(self) -> pa.Table:
        return pa.concat_tables(self._tables)


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
        write_file(folder / model / _day(predicted.microseconds) / f"{name}.parquet", table)
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
    with whole_file(path) as file:
        pq.write_table(table, file, compression="zstd")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name when its bytes are on the disk; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")  # no *.parquet: others look for it
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sweep(folder: Path) -> None:
    """Removes what killed processes left, on whatever machine they were."""
    for path in folder.glob(f"*/{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _SWEEP_AFTER_SECONDS:
                path.unlink()


def _day(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).date().isoformat()
