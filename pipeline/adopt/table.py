"""The table that a person names: its files, what is wrong with it, and what its columns hold."""

import glob
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from components.errors import PipelineStop, did_you_mean
from components.ingest import rows
from components.ingest.settings import CsvFormat
from pipeline import loading
from pipeline.adopt.part import Request

MOST_COLUMNS, FEW_ROWS = 5_000, 1_000
_KINDS = {pa.int64(): "INT", pa.float32(): "FLOAT", pa.float64(): "FLOAT", pa.string(): "BYTES"}
_ENDING = re.compile(r"\.(csv|tsv|jsonl|ndjson|parquet)(\.gz|\.zst)?$")
_SORTS_BY_TIME = re.compile(r"\d{4}([-/.])\d\d\1\d\d([T ]\d\d:\d\d.*)?")
_UNIT = re.compile(r"[$€£¥%]")
_NUMBERS: tuple[dict[str, str], ...] = (
    {},
    {"thousands": ","},
    {"decimal": ","},
    {"decimal": ",", "thousands": "."},
)
"""The options that read numbers as people write them, beside units."""
_DATE = re.compile(
    r"\s*(\d{1,4}|[A-Za-z]{3,9})[-/., ]+(\d\d?|[A-Za-z]{3,9})[-/., ]+\d{1,4}([T ].*)?\s*"
    r"|(19|20)\d\d[01]\d[0-3]\d"
)
_TIME = re.compile(r"(^|[_\W])(timestamp|datetime|date|time|epoch|created|updated|at|ts)$", re.I)
_QUERY = r"""
WITH counted AS (
  SELECT name, value, count(*) AS n
  FROM (UNPIVOT (SELECT COLUMNS(*)::VARCHAR FROM rows) ON COLUMNS(*)) GROUP BY ALL
), ranked AS (
  SELECT *, trim(value) AS text, try_cast(value AS DOUBLE) AS number,
    row_number() OVER (PARTITION BY name ORDER BY n DESC, number, value) AS place
  FROM counted
)
SELECT name, sum(n)::BIGINT, count(*), list((value, n) ORDER BY place) FILTER (place <= 101),
  coalesce(min(number), 'nan'), coalesce(max(number), 'nan'),
  coalesce(bool_and(number % 1 = 0), false), (sum(n * length(value)) / sum(n))::DOUBLE,
  (sum(n * len(string_split_regex(text, '\s+'))) FILTER (place <= 101)
    / sum(n) FILTER (place <= 101))::DOUBLE,
  coalesce(list(value ORDER BY place) FILTER (number IS NULL)[:50], [])
FROM ranked GROUP BY name
"""
"""Of each column with values its name, and the fields of `Column` from `present` to `texts`."""

Value = str | int | float


@dataclass(frozen=True)
class Column:
    """One column of the profiled rows."""

    name: str
    kind: str
    """INT, FLOAT or BYTES, as in the schema."""
    rows: int
    present: int = 0
    """Rows with a value."""
    distinct: int = 0
    frequent: tuple[tuple[Value, int], ...] = ()
    """The 101 most frequent values with their numbers of rows; equal ones in order of value."""
    low: float = np.nan
    high: float = np.nan
    whole: bool = False
    """Whether all are whole numbers."""
    characters: float = 0.0
    """Mean length of a value."""
    words: float = 0.0
    """Mean number of words."""
    texts: tuple[str, ...] = ()
    """The most frequent 50 values that are no numbers."""
    rises: bool = False
    """Whether each whole number is greater than the one in the row before."""
    block: float = 0.0
    """Rows in which a value stands, one after the other; 0 if it stands elsewhere too."""
    dates: str = ""
    """How dates are written, as in `components.features.table.Date`; empty if these are none."""
    parts: tuple[str, ...] = ()
    """Of month, weekday and hour those that differ."""

    @property
    def missing(self) -> float:
        """The fraction of rows without a value."""
        return 1 - self.present / self.rows

    @property
    def is_unique(self) -> bool:
        """Whether nearly each row has a value of its own."""
        return self.present >= 20 and self.distinct >= 0.95 * self.present


class Data(NamedTuple):
    """What was read."""

    settings: dict[str, Any]
    """Of `data`: where the files are, and how they are written."""
    files: list[str]
    table: pa.Table
    """The first million rows, or fewer if there are many columns: int64, float32 and string."""
    is_all: bool
    bad: int
    """Rows that no run can use."""
    remarks: list[str]
    """A sentence for each column of numbers, and the label, with texts taken for missing."""


def read(request: Request) -> Data:
    """Reads the first rows of the files that a person names.

    Raises:
      PipelineStop: there are none, or one cannot be read, has too many columns, or bad rows and no
        --quarantine.
    """
    names = {"data": request.data, "label": request.label}
    stop("adopt", [f"no {o} is named ({o.upper()}=...)" for o, name in names.items() if not name])
    form, (path, pattern, files) = csv_format(request), find(request.data)
    try:
        found = _read(files, form, request)
    except PipelineStop as error:  # the reader names settings, of which these are options here
        options = r"data\.csv\.(separator|encoding|decimal|thousands|nulls)"
        raise PipelineStop(re.sub(options, r"--\1", str(error))) from error
    csv = form.model_dump(exclude_defaults=True)
    data = Data({"path": path, "pattern": pattern} | ({"csv": csv} if csv else {}), files, *found)
    if os.path.isabs(path):
        advice = "copy the data into the project, or set data.path there"
        data.remarks.append(f"data.path is {path}; elsewhere it must be there too: {advice}")
    return data


def find(data: str) -> tuple[str, str, list[str]]:
    """`data.path`, `data.pattern` and the files of a path, a folder or a pattern.

    'package:NAME/...' is inside a Python package.

    Raises:
      PipelineStop: there are none, or their names would select spans.
    """
    if "://" in data:
        raise PipelineStop(
            f"{data} is not on this machine. Copy some of it here and adopt that; afterwards "
            "data.path in the configuration can name the whole."
        )
    path = loading.in_package("DATA", data).expanduser()
    folder, pattern = path.parent, glob.escape(path.name)
    if path.is_dir():
        folder, pattern = path, f"*{_ending(path)}"
    elif not path.exists():
        fixed = [*takewhile(lambda part: not glob.has_magic(part), path.parts[:-1])]
        folder, pattern = Path(*fixed), str(Path(*path.parts[len(fixed) :]))
    names = sorted(name for name in glob.glob(str(folder / pattern)) if not os.path.isdir(name))
    if not names:
        raise PipelineStop(
            f"There is no file {data}. Name a CSV, JSON lines or Parquet file, a folder of them, "
            "or a quoted pattern such as 'data/*.csv'."
        )
    if "{" in pattern:
        raise PipelineStop(
            f"The file name {pattern} has a '{{', which selects spans in data.pattern. Rename the "
            "file."
        )
    package = data.partition("/")[0] if data.startswith("package:") else ""
    root = loading.in_package("DATA", package).resolve() if package else loading.PROJECT
    folder = folder.resolve()
    inner = folder.relative_to(root) if folder.is_relative_to(root) else folder
    return f"{package}/{inner}" if package else str(inner), pattern, names


def _ending(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    endings = sorted({match[0] for name in names if (match := _ENDING.search(name))})
    if len(endings) == 1:
        return endings[0]
    there = f"files that end in {' and in '.join(endings)}" if endings else "no data files"
    raise PipelineStop(
        f"The folder {folder} has {there} (there: {', '.join(names[:5]) or 'nothing'}). Name a "
        f"file, or a pattern such as '{folder}/*.csv' or '{folder}/*/*.parquet'."
    )


def csv_format(request: Request) -> CsvFormat:
    """How the files are written.

    Raises:
      PipelineStop: an option has a value with which no file can be read.
    """
    options = {name: getattr(request, name) for name in CsvFormat.model_fields if name != "quote"}
    try:
        form = CsvFormat.model_validate({n: v for n, v in options.items() if v not in ((), [])})
        stop("adopt", (f"--{path[0]} {text}" for path, text in form.problems()))
    except ValidationError as error:
        stop("adopt", (f"--{e['loc'][0]} {e['input']!r}: {e['msg']}" for e in error.errors()))
    return form


def _read(
    files: list[str], form: CsvFormat, request: Request
) -> tuple[pa.Table, bool, int, list[str]]:
    bad, seen, batches = 0, 0, list[pa.RecordBatch]()
    with rows.tables(files, form) as reader:
        header = [*reader.columns(files[0])]
        if header[0].lstrip().startswith("{"):
            raise PipelineStop(f"{files[0]} looks like JSON lines: let its name end in .jsonl.")
        if len(header) > MOST_COLUMNS:
            raise PipelineStop(
                f"{files[0]} has {len(header):,} columns; {MOST_COLUMNS:,} can be adopted. "
                "Keep those that may tell something of the label, in a file of their own."
            )
        most = min(1_000_000, 40_000_000 // len(header))
        kinds = reader.kinds(files, most)
        for name in files:
            wanted = rows.Columns(kinds, label=request.label)
            reading = reader.read(name, wanted, limit=most + 1 - seen)
            batches += reading.with_strings()
            bad, seen = bad + reading.bad, seen + reading.seen
            if not request.quarantine:
                reading.check()
            if seen > most:
                break
        numbers = [name for name, kind in kinds.items() if kind != "BYTES" or name == request.label]
        as_text = rows.Columns(dict.fromkeys(numbers), exact=False)
        first = [*reader.read(files[0], as_text, limit=100_000).with_strings()] if numbers else []
    nulls = [*_nulls(pa.Table.from_batches(first), form.nulls)] if numbers else []
    return pa.Table.from_batches(batches)[:most], seen <= most, bad, nulls


def _nulls(first: pa.Table, nulls: list[str]) -> Iterator[str]:
    """Yields which texts in columns of numbers were taken for missing values."""
    for name, column in zip(first.column_names, first.columns, strict=True):
        if column.type == pa.string():
            texts = column.to_pandas().str.strip()
            counts = texts[texts.isin(nulls)].value_counts().items()
            if told := ", ".join(f"'{text}' ({count:,} rows)" for text, count in counts):
                yield f"{name}: {told} taken for missing; --nulls TEXT names others"


def chosen_name(request: Request) -> str:
    """The configuration's name: the one asked for, or a tidy one of the data's file or folder."""
    if request.name is not None:
        return request.name
    stem = Path(re.split(r"[*?[]", request.data)[0].rstrip("/")).name.split(".")[0]
    tidy = re.sub(r"[^a-z0-9]+", "-", stem.lower())[:60].strip("-")
    return tidy if tidy[:1].isalpha() else f"data-{tidy}".strip("-")


def name_mistakes(name: str) -> Iterator[str]:
    """Yields why a name cannot be a configuration's."""
    if len(name) > 60:
        yield f"--name has {len(name)} characters: use at most 60"
    elif not re.fullmatch("[a-z][a-z0-9-]*", name):
        yield f"--name {name!r}: use lower-case letters, digits and '-', and begin with a letter"


def mistakes(table: pa.Table, request: Request) -> Iterator[str]:
    """Yields what of the request the table does not allow."""
    names = table.column_names
    if len(names) == 1:
        one = names[0][:80]
        yield f"there is one column only, '{one}'. Another separator? Then --separator ';'"
    options = [("label", request.label), ("key", request.key), ("time", request.time)]
    options += [(o, name) for o in ("keep", "exclude", "tidy") for name in getattr(request, o)]
    for option, name in options:
        if name is not None and name not in names:
            there = f"; there are: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
            yield f"--{option} {name}: there is no such column{did_you_mean(name, names) or there}"
        elif option != "label" and name == request.label:
            yield f"--{option} {name}: that is the label"
        elif option in ("key", "time") and name and (empty := table[name].null_count):
            yield f"--{option} {name}: is empty in {empty:,} rows; all need a value"
    if both := sorted({*request.keep} & {*request.exclude, request.key, request.time}):
        yield f"--keep {', '.join(both)}: also left out by another option"
    times = table[request.time][:10_000].unique().to_pylist() if request.time in names else []
    if not all(_SORTS_BY_TIME.fullmatch(time.strip()) for time in times if isinstance(time, str)):
        yield (
            f"--time {request.time}: these texts do not sort by time. Write them as 2024-01-31, or "
            "as seconds since 1970"
        )
    if table.num_rows < 40:
        yield (
            f"{table.num_rows} rows are too few: train, eval and test each need some. At least 40 "
            "are needed, and some hundreds for a model worth having"
        )
    if request.label in names:
        yield from _label_mistakes(table[request.label], request)


def _label_mistakes(label: pa.ChunkedArray, request: Request) -> Iterator[str]:
    count, empty, values = len(label), label.null_count, label.drop_null().unique()
    if empty == count:
        yield f"the label '{request.label}' is empty in all rows"
    elif len(values) < 2:
        always = str(values[0])[:40]
        yield f"the label '{request.label}' is always '{always}': there is nothing to learn"
    elif empty and not request.quarantine:
        yield (
            f"the label '{request.label}' is empty in {empty:,} of {count:,} rows "
            f"({empty / count:.1%}). Fill or remove those rows, or add --quarantine: then each run "
            "sets them aside (data.bad_rows)"
        )


def stop(subject: str, mistakes: Iterable[str]) -> None:
    """Stops if there is any mistake.

    Raises:
      PipelineStop: lists them.
    """
    sentences = [mistake if mistake.endswith("?") else f"{mistake}." for mistake in mistakes]
    if len(sentences) == 1:
        raise PipelineStop(f"{subject}: {sentences[0]}")
    if sentences:
        lines = "\n".join(f"  {sentence}" for sentence in sentences)
        raise PipelineStop(f"{subject}: {len(sentences)} things are wrong:\n{lines}")


def sample(table: pa.Table, count: int) -> pa.Table:
    """At most so many of the rows, the same each time, in their order."""
    if table.num_rows > count:
        chosen = np.random.default_rng(0).choice(table.num_rows, count, replace=False)
        table = table.take(pa.array(np.sort(chosen)))
    return table.combine_chunks()


def profile(table: pa.Table) -> dict[str, Column]:
    """Measures each column, on at most 100,000 rows and 5 million values."""
    some = sample(table, min(100_000, 5_000_000 // table.num_columns))
    numbered = some.rename_columns([str(number) for number in range(table.num_columns)])
    with duckdb.connect() as connection:  # in which names of columns have no case
        facts = connection.register("rows", numbered).execute(_QUERY).fetchall()
    measured = {int(number): fields for number, *fields in facts}
    return {
        name: _column(name, some[name], table[name][:20_000], measured.get(number))
        for number, name in enumerate(table.column_names)
    }


def _column(
    name: str, values: pa.ChunkedArray, first: pa.ChunkedArray, facts: list[Any] | None
) -> Column:
    kind = _KINDS[values.type]
    if facts is None:
        return Column(name, kind, len(values))
    present, distinct, frequent, low, high, whole, characters, words, texts = facts
    own = {"INT": int, "FLOAT": float, "BYTES": str}[kind]
    frequent = tuple((own(value), count) for value, count in frequent)
    rises = kind == "INT" and bool((np.diff(values.drop_null().to_numpy()) > 0).all())
    changes = pc.sum(pc.not_equal(first[1:], first[:-1])).as_py() or 0
    is_block = kind != "FLOAT" and changes + 1 == pc.count_distinct(first, mode="all").as_py()
    block = len(first) / (changes + 1) if is_block else 0.0
    forms: list[str] = []
    if kind == "INT" and whole and (rises or _TIME.search(name)):
        units = {"seconds": 1, "milliseconds": 1_000}
        forms = [unit for unit, size in units.items() if 3e8 * size < low <= high < 5e9 * size]
    dates, parts = _dates(kind, values, forms)
    return Column(
        name, kind, len(values), present, distinct, frequent, low, high, whole, characters, words,
        tuple(texts), rises, block, dates, parts,
    )  # fmt: skip


def _dates(kind: str, values: pa.ChunkedArray, forms: list[str]) -> tuple[str, tuple[str, ...]]:
    """How a column's dates are written, and which of their parts differ; nothing if it has none.

    `forms` are those of numbers since 1970 that these can be.
    """
    some = values.drop_null().unique()
    some = some.take(pa.array(np.linspace(0, len(some) - 1, min(len(some), 2_000)).astype(int)))
    texts = some.cast(pa.string()).to_pylist()
    if kind != "FLOAT" and all(map(_DATE.fullmatch, texts[:50])):
        forms = ["ymd", "mdy", "dmy"] if "/" in texts[0] else ["ymd", "dmy", "mdy"]
    for form in forms:
        import tensorflow as tf  # which takes seconds

        from components.features.dates import part_ids
        from components.features.table import DATE_PARTS, Date

        tensor = tf.constant(some.to_numpy() if "s" in form else texts)
        made = {
            part: part_ids(tensor, Date(kind="date", format=form, part=part, missing="own"))
            for part in DATE_PARTS
        }
        if np.mean(made["month"][0]) < 0.05:
            return form, tuple(p for p, (_, ids) in made.items() if len(np.unique(ids)) > 1)
    return "", ()


def remarks(column: Column, request: Request) -> Iterator[str]:
    """Yields what is odd in a text column's values, and what mends it."""
    if column.kind != "BYTES":
        return
    texts = [text.strip() for text in column.texts]
    if options := _options(texts):
        yield f"{column.name}: numbers such as {texts[0]} are text here; read them with {options}"
    if 0 < len(texts) <= 5 and column.distinct - len(texts) >= 20:
        nulls = " ".join(f"--nulls {shlex.quote(text)}" for text in texts)
        yield f"{column.name}: text only for {', '.join(map(repr, texts))}; if missing: {nulls}"
    alike: dict[str, list[Value]] = defaultdict(list)
    for value, _ in column.frequent:
        alike[str(value).strip().casefold()].append(value)
    mend = f"--tidy {shlex.quote(column.name)} takes them for one"
    if column.name == request.label:
        mend = "correct them in the file, or with data.sql"
    for values in alike.values():
        if len(values) > 1 and column.name not in request.tidy:
            shown = " beside ".join(map(repr, values))
            yield f"{column.name}: {shown} are different values; {mend}"


def _options(texts: list[str]) -> str:
    """The options that read texts as numbers; none if these are no numbers."""
    units = sorted({*_UNIT.findall("".join(texts))})
    for options in _NUMBERS:
        pattern = rows.pattern("FLOAT", CsvFormat.model_validate({"units": units, **options}))
        if sum(bool(re.fullmatch(pattern, text)) for text in texts) > 0.9 * max(1, len(texts)):
            named = [f"--units '{unit}'" for unit in units]
            return " ".join([*named, *(f"--{option} {mark}" for option, mark in options.items())])
    return ""
