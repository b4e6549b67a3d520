"""The taxi rows as spans of a quarter each: what the replays live through.

Months would be too small: in 2016 there are 201 to 222 rows a quarter.
"""

import csv
import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from components.errors import PipelineStop
from components.files import TEMPORARY
from pipeline import loading

TIME = "trip_start_timestamp"
"""The column that says when a trip began, in seconds since 1970."""

Row = list[str]


class Quarters(NamedTuple):
    """Rows as the text of their fields, by span; the earliest quarter is span 1."""

    header: Row
    spans: dict[int, list[Row]]
    first: int
    """The earliest quarter, counted from the first one of year 0."""

    def name(self, span: int) -> str:
        """'2014 Q3'."""
        year, quarter = divmod(self.first + span - 1, 4)
        return f"{year} Q{quarter + 1}"


def read_quarters() -> Quarters:
    """Reads the rows that `configs/taxi.yaml` names.

    Raises:
      PipelineStop: They are not the taxi rows.
    """
    config = loading.load("taxi")
    folder = loading.data_folder(config)
    files = sorted(folder.glob(config.data.pattern))
    header, rows = _read(files)
    if TIME not in header:
        raise PipelineStop(
            f"The replays are of the taxi rows, in quarters by {TIME}. configs/taxi.yaml names "
            f"{folder}/{config.data.pattern}, which has no such column. Put the taxi data back "
            "into `data:` of configs/taxi.yaml."
        )
    return divide(header, rows)


def _read(files: Iterable[Path]) -> tuple[Row, list[Row]]:
    """The first file's header, and the rows of all."""
    header: Row = []
    rows: list[Row] = []
    for path in files:
        with open(path, encoding="utf-8", newline="") as file:
            header, *found = csv.reader(file)
            rows += found
    return header, rows


def divide(header: Row, rows: Iterable[Row]) -> Quarters:
    """Divides rows by the quarter (UTC) in which their trip began; they stay in their order."""
    column = header.index(TIME)
    by_quarter: dict[int, list[Row]] = {}
    for row in rows:
        by_quarter.setdefault(_quarter(int(row[column])), []).append(row)
    first = min(by_quarter)
    spans = {quarter - first + 1: by_quarter[quarter] for quarter in sorted(by_quarter)}
    return Quarters(header, spans, first)


def _quarter(seconds: int) -> int:
    """The quarter, counted from the first one of year 0."""
    began = datetime.fromtimestamp(seconds, UTC)
    return began.year * 4 + (began.month - 1) // 3


def write_span(folder: Path, span: int, header: Row, rows: Iterable[Row]) -> None:
    """Writes `span-<span>/rows.csv`; the folder appears whole, by one rename.

    Args:
      folder: `data.path`; made if it isn't there.
      span: Its number; its folder must not be there yet.
      header: The columns.
      rows: Their values.
    """
    temporary = folder / f"{TEMPORARY}span-{span}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with open(temporary / "rows.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, folder / f"span-{span}")
