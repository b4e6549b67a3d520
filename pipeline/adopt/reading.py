"""The files that a person names, where the configuration finds them, and their first rows."""

import glob
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from components.errors import PipelineStop
from components.ingest.settings import CsvFormat
from pipeline import loading
from pipeline.adopt.request import Request

ENDINGS = (".csv", ".csv.gz", ".parquet")
MAX_ROWS = 1_000_000
MAX_CELLS = 40_000_000
"""Of a table with thousands of columns fewer rows are read."""

_WILDCARD = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Files:
    """The data's files as `data.path` and `data.pattern` name them."""

    path: str
    pattern: str
    files: list[str]

    @property
    def shown(self) -> str:
        """For messages: the first file, and how many more."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"


def find(data: str) -> Files:
    """The files of a path, a folder or a glob; 'package:NAME/...' is inside a Python package.

    Raises:
      PipelineStop: there are none, or their names would select spans.
    """
    found = _find(str(loading.in_package("DATA", data)))
    if not data.startswith("package:"):
        return found
    package = data.partition("/")[0]
    root = loading.in_package("DATA", package).resolve()
    inner = (loading.PROJECT / found.path).relative_to(root)
    return replace(found, path=f"{package}/{inner}")


def _find(data: str) -> Files:
    given = Path(data).expanduser()
    if given.is_dir():
        return _in_folder(given)
    if given.exists():
        folder, pattern, found = given.parent, glob.escape(given.name), [str(given)]
    else:
        folder, pattern = _fixed_part(data)
        found = sorted(p for p in glob.glob(str(folder / pattern)) if os.path.isfile(p))
    if not found:
        raise PipelineStop(
            f"There is no file {data}. Name a CSV file (.csv or .csv.gz), a Parquet file, a folder "
            "of them, or a quoted pattern such as 'data/*.csv'."
        )
    return _files(folder, pattern, found)


def _in_folder(folder: Path) -> Files:
    found = {e: sorted(str(p) for p in folder.glob(f"*{e}") if p.is_file()) for e in ENDINGS}
    found = {ending: paths for ending, paths in found.items() if paths}
    if len(found) == 1:
        [(ending, paths)] = found.items()
        return _files(folder, f"*{ending}", paths)
    there = sorted(path.name for path in folder.iterdir())[:5]
    what = f"files that end in {' and in '.join(found)}" if found else "no data files"
    raise PipelineStop(
        f"The folder {folder} has {what} (there: {', '.join(there) or 'nothing'}). Name a file, or "
        f"a pattern such as '{folder}/*.csv' or '{folder}/*/*.parquet'."
    )


def _fixed_part(pattern: str) -> tuple[Path, str]:
    """The folder before the first wildcard, and the pattern below it."""
    parts = Path(pattern).expanduser().parts
    fixed = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts) - 1)
    return Path(*parts[:fixed]), str(Path(*parts[fixed:]))


def _files(folder: Path, pattern: str, found: list[str]) -> Files:
    if "{" in pattern:
        raise PipelineStop(
            f"The file name {pattern} has a '{{', which selects spans in data.pattern. Rename the "
            "file."
        )
    resolved = folder.resolve()
    inside = resolved.is_relative_to(loading.PROJECT)
    path = str(resolved.relative_to(loading.PROJECT) if inside else resolved)
    return Files(path, pattern, found)


def csv_format(request: Request) -> CsvFormat:
    """How the CSV files are written."""
    return CsvFormat(separator=request.separator, encoding=request.encoding)


def read(files: Files, csv: CsvFormat) -> tuple[pa.Table, bool]:
    """The table's first rows, and whether those are all.

    Raises:
      PipelineStop: a file cannot be read; the message is ingest's.
    """
    from components.ingest.tables import read_table  # TFX, which takes seconds

    columns = read_table(files.files, csv, 1).num_columns
    most = min(MAX_ROWS, MAX_CELLS // max(1, columns))
    table = read_table(files.files, csv, most + 1)
    return table[:most], table.num_rows <= most
