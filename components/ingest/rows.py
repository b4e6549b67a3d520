"""The one reader of tables: CSV, Parquet and JSON lines through DuckDB, a file or many.

    with rows.tables(files, form) as tables:                     # files: all that may be read
        tables.columns(file)                                     # {'fare': 'VARCHAR', ...}
        kinds = tables.kinds(files, limit=1_000_000)             # {'fare': 'FLOAT', ...}, inferred
        reading = tables.read(file, Columns(kinds, filled={"id"}))
        for batch in reading: ...                                # Arrow batches of the good rows
        reading.bad, reading.bad_rows                            # a count, and the first few
        loaded = tables.load("trips", files, Columns(kinds))     # the good rows as a table of SQL
        tables.connection.sql("SELECT count(*) FROM trips")      # spills to disk beyond its memory

What a value of a type is has its one answer here. INT: a whole number of 64 bits, `12` or `12.0`;
FLOAT: a finite number of 32 bits; BYTES: text. Where a column of a file has a type of its own, it
must fit: a date or a time becomes text. Missing are null, NaN, an empty text and, in columns of
numbers and in the label, the texts of `form.nulls`. A row with a value that is none of its column's
type, without a value that must be there, or with another number of fields than the header is bad.

The connection is locked: no network, no extension, no file but those named and its own temporary
ones. A file that is not plain UTF-8 is copied there, decompressed. One thread: rows keep their
order, and those who read many files do so side by side.
"""

import contextlib
import csv
import difflib
import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import PipelineStop
from components.ingest import plain
from components.ingest.settings import CsvFormat, Kind

SHOWN = 10
"""So many bad rows are kept if nothing else is said."""
_VALUES = 1 << 18
"""Of all columns together, in a batch."""
_MEMORY = "1GB"
_KINDS: tuple[Kind, ...] = ("INT", "FLOAT", "BYTES")
"""From the narrowest to the widest."""
_NUMBERS = ("INT", "FLOAT", "DOUBLE")
_SQL_TYPES = {
    "INT": "BIGINT",
    "FLOAT": "FLOAT",
    "BYTES": "VARCHAR",
    None: "VARCHAR",
    "DOUBLE": "DOUBLE",
}
_INTEGERS = {f"{u}{size}INT" for u in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")}
_INTEGERS |= {"INTEGER", "UINTEGER"}
_TEXTS = {"VARCHAR", "BLOB", "UUID", "JSON"}
_MOMENTS = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"}
_TIMES = {"TIME", "TIME_NS", "TIME WITH TIME ZONE"}
_KEYS_LOOKED_AT = 10_000


Wanted = Kind | Literal["DOUBLE"] | None
"""What a column is read as. DOUBLE: a FLOAT of 64 bits, to look at and not to train from; None: as
it is in the file, text in CSV and JSON."""


class Columns(NamedTuple):
    """Which columns are read, and as what."""

    kinds: Mapping[str, Wanted]
    """By name, in the order they come out."""
    filled: Collection[str] = ()
    """Where a missing value makes a row bad."""
    label: str | None = None
    """The one text column in which the texts of `CsvFormat.nulls` are missing values too."""
    exact: bool = True
    """Whether other columns are an error; nested ones of Parquet are not. Else they are ignored."""
    optional: Collection[str] = ()
    """These are null where a file does not have them."""


class Problem(NamedTuple):
    """Something wrong with a row: with one of its columns, or with the whole row."""

    column: str | None
    what: str
    value: str = ""
    """As it is shown."""

    def __str__(self) -> str:
        """What follows the number of the row in a message."""
        text = f"{self.value} {self.what}".strip()
        return f": {text}" if self.column is None else f", column '{self.column}': {text}"

    @property
    def reason(self) -> str:
        """The same for all rows that have it."""
        if self.column is None:
            return re.sub(r"^\d+ fields, .*", "another number of fields than the header", self.what)
        return f"column '{self.column}' {self.what}"


class BadRow(NamedTuple):
    """A row that cannot be used."""

    file: str
    place: str
    """What `number` counts, from 1: "line"; or "row", after the header, if a row has many lines."""
    number: int
    problems: list[Problem]
    raw: str | None
    """The row as it stands in the file; None in Parquet."""

    def __str__(self) -> str:
        """A line for each problem."""
        return "\n".join(f"  {self.place} {self.number}{problem}" for problem in self.problems)


class Loaded(NamedTuple):
    """What came of files that became a table."""

    rows: int
    bad: int
    bad_rows: list[BadRow]
    """The first few of each file."""


class _Source(NamedTuple):
    """A file that DuckDB may read, with columns r0, r1, ... and, of JSON, `line` and `n`."""

    file: str
    plain: plain.Plain
    types: dict[str, str]
    """DuckDB's type of each column, in order."""
    query: str = ""
    """SQL in place of a file."""

    @property
    def names(self) -> list[str]:
        return [*self.types]


@contextlib.contextmanager
def tables(files: Iterable[str], form: CsvFormat | None = None) -> Iterator["Tables"]:
    """Yields the reader of some files.

    Args:
        files: All that may be read, in any file system that TFX knows.
        form: How those of CSV and JSON are written.
    """
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        reader = Tables([*files], form or CsvFormat(), folder)
        try:
            yield reader
        finally:
            reader.connection.close()


def connect(files: Iterable[str], folder: str) -> duckdb.DuckDBPyConnection:
    """A database in memory that can reach these files and one folder, and nothing else."""
    connection = duckdb.connect(config={"threads": 1, "memory_limit": _MEMORY})
    allowed = [os.path.realpath(file) for file in files if "://" not in file]
    connection.execute("SET temp_directory = $1", [os.path.join(folder, "spilled")])
    connection.execute("SET allowed_directories = $1", [[folder]])
    connection.execute("SET allowed_paths = $1", [allowed])
    for name, value in (
        ("python_enable_replacements", "false"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("TimeZone", "'UTC'"),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        connection.execute(f"SET {name} = {value}")
    return connection


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL takes it."""
    return "'" + text.replace("'", "''") + "'"


class Tables:
    """Reads files; made by `tables`."""

    def __init__(self, files: list[str], form: CsvFormat, folder: str) -> None:
        """Takes the files, how they are written, and a folder for what is temporary."""
        self.connection = connect(files, folder)
        self.form = form
        self._folder = folder
        self._sources: dict[str, _Source] = {}
        self._scans = 0

    def columns(self, file: str) -> dict[str, str]:
        """The columns of a file in its order, and DuckDB's types; VARCHAR in CSV and JSON.

        Raises:
            PipelineStop: If the file can't be read, or its header can't be used.
        """
        return dict(self._source(file).types)

    def kinds(self, files: Sequence[str], limit: int) -> dict[str, Kind]:
        """Infers what the columns of some files are from their first `limit` rows.

        A column of text is INT if all its values are whole numbers, FLOAT if all are numbers. What
        holds lists or records in Parquet is left out.

        Raises:
            PipelineStop: If a file can't be read, has no rows, or other columns than the first.
        """
        found: dict[str, Kind] = {}
        left = limit
        for file in files:
            if left <= 0:
                break
            kinds, rows = self._inferred(self._source(file), left)
            if not rows:
                self._stop_without_rows(file)
            if found and set(kinds) != set(found):
                raise _other_columns(file, [*kinds], files[0], [*found])
            found = {
                name: max(kinds[name], found.get(name, kinds[name]), key=_KINDS.index)
                for name in found or kinds
            }
            left -= rows
        return found

    def read(
        self, file: str, columns: Columns, keep: int = SHOWN, limit: int | None = None
    ) -> "Reading":
        """Reads a file.

        Args:
            file: The file.
            columns: Which columns, and what makes a row bad.
            keep: So many bad rows are kept.
            limit: Only the first rows.

        Raises:
            PipelineStop: At once, if the file can't be read or does not have these columns; while
                it is iterated, if it can't be read to its end.
        """
        source = self._source(file)
        self._check(source, columns)
        return Reading(self, source, columns, keep, limit)

    def load(
        self,
        name: str,
        files: Sequence[str],
        columns: Columns,
        keep: int = SHOWN,
        limit: int | None = None,
    ) -> Loaded:
        """Makes a table of the good rows of some files, in order: `create`, then `fill`."""
        self.create(name, files, columns)
        return self.fill(name, files, columns, keep, limit)

    def create(self, name: str, files: Sequence[str], columns: Columns) -> None:
        """Makes an empty table for the rows of some files.

        Raises:
            PipelineStop: If SQL cannot tell two of the columns apart.
        """
        _check_case(columns.kinds)
        types = [f"{quoted(n)} {self._table_type(n, k, files)}" for n, k in columns.kinds.items()]
        self.connection.execute(f"CREATE TABLE {quoted(name)} ({', '.join(types)})")

    def fill(
        self,
        name: str,
        files: Sequence[str],
        columns: Columns,
        keep: int = SHOWN,
        limit: int | None = None,
    ) -> Loaded:
        """Puts the good rows of some files into a table.

        Args:
            name: The table's.
            files: The files.
            columns: Which columns, and what makes a row bad.
            keep: So many bad rows of each file are kept.
            limit: Only the first rows of all files together.

        Raises:
            PipelineStop: If a file can't be read to its end or does not have these columns.
        """
        rows, bad, bad_rows = 0, 0, list[BadRow]()
        for file in files:
            left = None if limit is None else limit - rows - bad
            if left is None or left > 0:
                reading = self.read(file, columns, keep, left)
                rows += reading.into(name)
                bad += reading.bad
                bad_rows += reading.bad_rows
        return Loaded(rows, bad, bad_rows)

    def select(self, query: str, columns: Columns, keep: int = SHOWN) -> "Reading":
        """Reads the result of a query as if it were a file of Parquet."""
        types = {row[0]: row[1] for row in self.connection.sql(f"DESCRIBE {query}").fetchall()}
        result = plain.Plain("parquet", "", [], 0)
        source = _Source(
            "the result of data.sql", result, types, f"(\n{query.rstrip().rstrip(';')}\n)"
        )
        return Reading(self, source, columns, keep, None)

    def scan(self, source: _Source) -> tuple[str, str]:
        """What to select a file's rows from, and the name of the table of its rejects."""
        self._scans += 1
        path, rejects = literal(source.plain.path), f"rejects_{self._scans}"
        alias = f"t({', '.join(f'r{i}' for i in range(len(source.types)))})"
        if source.query:
            return f"{source.query} AS {alias}", ""
        if source.plain.kind == "parquet":
            return f"read_parquet({path}) AS {alias}", ""
        if source.plain.kind == "json":
            return f"({_json_lines(path, source.names)})", ""
        quote = literal(self.form.quote)
        names = ", ".join(f"'r{i}': 'VARCHAR'" for i in range(len(source.types)))
        return (
            f"read_csv({path}, auto_detect = false, header = true, skip = {source.plain.skipped}, "
            f"delim = {literal(self.form.separator)}, quote = {quote}, escape = {quote}, "
            f"columns = {{{names}}}, store_rejects = true, rejects_table = '{rejects}', "
            f"rejects_scan = '{rejects}_scan', rejects_limit = 0)",
            rejects,
        )

    def _source(self, file: str) -> _Source:
        if file not in self._sources:
            link = os.path.join(self._folder, str(len(self._sources)))
            opened = plain.make_plain(file, self.form, link)
            source = _Source(file, opened, self._types(file, opened))
            if opened.kind == "csv" and plain.has_two_line_ends(opened):
                source = self._with_one_line_end(source)
            self._sources[file] = source
        return self._sources[file]

    def _with_one_line_end(self, source: _Source) -> _Source:
        """A copy whose lines end alike, if DuckDB does not read the file as it is.

        It refuses lines that end in two ways, and takes the first line end, which may stand in a
        column's name, for that of all lines: then it finds no rows, without a word.
        """
        if any("\n" in name or "\r" in name for name in source.plain.header):
            return source._replace(plain=plain.with_one_line_end(source.plain))
        try:
            self.connection.sql(f"SELECT count(*) FROM {self.scan(source)[0]}").fetchall()
        except duckdb.Error:
            return source._replace(plain=plain.with_one_line_end(source.plain))
        return source

    def _types(self, file: str, opened: plain.Plain) -> dict[str, str]:
        if opened.kind == "csv":
            why = plain.hint(opened.header, self.form)
            names = opened.header
            types = ["VARCHAR"] * len(names)
        elif opened.kind == "json":
            why, names = "", self._keys(opened, _KEYS_LOOKED_AT)
            types = ["VARCHAR"] * len(names)
        else:
            found = _fetched(
                self.connection, file, f"DESCRIBE FROM read_parquet({literal(opened.path)})"
            )
            names = pq.read_schema(opened.path).names  # DuckDB renames 'A' beside 'a'.
            why, types = "", [row[1] for row in found]
        _check_names(file, names, why)
        return dict(zip(names, types, strict=True))

    def _keys(self, opened: plain.Plain, limit: int | None) -> list[str]:
        """The keys of a file of JSON lines, in the order they come."""
        only = f"WHERE n <= {limit}" if limit else ""
        query = (
            "SELECT CASE WHEN is_object THEN json_keys(line) END, min(n) FROM "
            f"({_json_lines(literal(opened.path), [])}) {only} "
            "GROUP BY 1 ORDER BY 2"
        )
        rows = _fetched(self.connection, opened.path, query)
        return [*dict.fromkeys(key for row in rows for key in row[0] or [])]

    def _table_type(self, name: str, kind: Wanted, files: Sequence[str]) -> str:
        if kind is not None:
            return _SQL_TYPES[kind]
        types = {self._source(file).types.get(name) for file in files} - {None}
        return str(types.pop()) if len(types) == 1 else "VARCHAR"

    def _check(self, source: _Source, columns: Columns) -> None:
        """Compares a file's columns with those that are wanted."""
        missing = set(columns.kinds) - set(source.types) - set(columns.optional)
        if missing and source.plain.kind == "json":
            source.types.update(dict.fromkeys(self._keys(source.plain, None), "VARCHAR"))
        nested = {name for name, own in source.types.items() if _is_nested(own)}
        names = [name for name in source.types if name in columns.kinds or name not in nested]
        wanted = [name for name in columns.kinds if name not in columns.optional or name in names]
        mistakes = [*_differences(names if columns.exact else wanted_of(names, wanted), wanted)]
        if mistakes:
            why = plain.hint(source.names, self.form) if source.plain.kind == "csv" else ""
            raise PipelineStop(
                f"{source.file}: the columns do not fit: {'; '.join(mistakes)}. "
                + (why or "Correct the file, or make and review the schema anew.")
            )
        wrong = [
            f"column '{name}' is {_shortened(source.types[name])} in the file and {kind} in the "
            "schema"
            for name, kind in columns.kinds.items()
            if name in source.types and not fits(source.types[name], kind)
        ]
        if wrong:
            raise PipelineStop(
                f"{source.file} does not fit the schema: {'; '.join(wrong)}. Write the columns "
                "with the schema's types, or make and review the schema anew."
            )

    def _inferred(self, source: _Source, limit: int) -> tuple[dict[str, Kind], int]:
        scanned, _ = self.scan(source)
        is_typed = source.plain.kind == "parquet"
        texts = [] if is_typed else [*enumerate(source.types)]
        counts = [f"count(*) FILTER ({t})" for i, n in texts for t in self._tests(source, i, n)]
        first = f"(SELECT * FROM {scanned} LIMIT {limit})"
        query = f"SELECT {', '.join(['count(*)', *counts])} FROM {first}"
        [(rows, *found)] = _fetched(self.connection, source.file, query)
        if is_typed:
            own = {name: kind_of(type_) for name, type_ in source.types.items()}
            return {name: kind for name, kind in own.items() if kind}, rows
        kinds: dict[str, Kind] = {}
        for (_, name), counted in zip(texts, zip(*[iter(found)] * 4, strict=True), strict=True):
            values, gaps, integers, numbers = counted
            is_number = values == numbers + gaps and (numbers or not values)
            kinds[name] = "BYTES" if not is_number else "INT" if integers == numbers else "FLOAT"
        return kinds, rows

    def _stop_without_rows(self, file: str) -> None:
        reading = self.read(file, Columns(dict.fromkeys(self._source(file).types)))
        if not any(len(batch) for batch in reading) and reading.bad:
            raise stop_at(file, reading.bad, reading.bad_rows)
        raise PipelineStop(f"{file} has a header, but no rows. Fill the file or move it away.")

    def _tests(self, source: _Source, index: int, name: str) -> Iterator[str]:
        """For counts: a value, a text that stands for none, a whole number, a number."""
        form, text, pattern = self.form, f"r{index}", _pattern("INT", self.form, whole=True)
        yield f"{text} <> ''"
        yield f"{text} <> '' AND trim({text}) IN ({_listed(form.nulls)})"
        number = _number("FLOAT", text, form)
        if source.plain.kind == "json":  # "12" in quotation marks is a text there.
            number = f"CASE WHEN json_type(line, {_pointer(name)}) <> 'VARCHAR' THEN {number} END"
        yield f"isfinite({number}) AND regexp_full_match({text}, {literal(pattern)}) AND " + (
            f"{_number('INT', text, form)} IS NOT NULL"
        )
        yield f"isfinite({number})"


class Reading:
    """The good rows of a file, as Arrow batches in its order; what was bad when all is read.

    INT is int64, FLOAT float32 and BYTES binary.
    """

    def __init__(
        self, tables: Tables, source: _Source, columns: Columns, keep: int, limit: int | None
    ) -> None:
        """Made by `Tables.read`."""
        self._tables, self._source, self._columns = tables, source, columns
        self._keep, self._limit = keep, limit
        self._cursor = tables.connection.cursor()
        self._found: list[tuple[int, list[Problem], str | None]] = []
        self.seen = 0
        """Rows so far, good and bad."""
        self.bad = 0
        """Bad rows so far; at the end those with another number of fields are among them."""
        self.bad_rows: list[BadRow] = []
        """The first few, when all is read."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yields the good rows; a batch may have none."""
        query, rejects = self._query()
        names, size = [*self._columns.kinds], max(1024, _VALUES // len(self._columns.kinds))
        try:
            for rows in self._cursor.sql(query).to_arrow_reader(size):
                yield self._good(rows, names)
            self._finish(self._cursor, rejects)
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def bad_so_far(self) -> list[BadRow]:
        """The first few before all is read; they count rows, without those of other lengths."""
        return [BadRow(self._source.file, "row", *found) for found in self._found]

    def into(self, table: str) -> int:
        """Puts the good rows into a table of the connection, and returns how many they are."""
        cursor, names = self._tables.connection, [*self._columns.kinds]
        query, rejects = self._query()
        try:
            cursor.execute(f"CREATE OR REPLACE TABLE read_rows AS {query}")
        except duckdb.Error as error:
            raise self._unreadable(error) from error
        good = ", ".join(f"c{i}" for i in range(len(names)))
        cursor.execute(
            f"INSERT INTO {quoted(table)} SELECT {good} FROM read_rows WHERE codes IS NULL"
        )
        [(self.seen, self.bad)] = cursor.sql(
            "SELECT count(*), count(codes) FROM read_rows"
        ).fetchall()
        rows = self.seen - self.bad
        for row in cursor.sql(
            "SELECT rowid, codes, raw, n FROM read_rows WHERE codes IS NOT NULL ORDER BY 1 "
            f"LIMIT {self._keep}"
        ).fetchall():
            self._keep_row(*row)
        cursor.execute("DROP TABLE read_rows")
        self._finish(cursor, rejects)
        return rows

    def _good(self, rows: pa.RecordBatch, names: list[str]) -> pa.RecordBatch:
        first, self.seen = self.seen, self.seen + len(rows)
        columns = [_as_bytes(rows[f"c{i}"]) for i in range(len(names))]
        batch = pa.RecordBatch.from_arrays(columns, names)
        if rows["codes"].null_count == len(rows):
            return batch
        is_bad = rows["codes"].is_valid().to_numpy(zero_copy_only=False)
        self._keep_some(rows, first, np.flatnonzero(is_bad))
        return batch.filter(pa.array(~is_bad))

    def _keep_some(self, rows: pa.RecordBatch, first: int, bad: Any) -> None:
        self.bad += len(bad)
        for index in bad[: max(0, self._keep - len(self._found))].tolist():
            row = [rows[name][index].as_py() for name in ("codes", "raw", "n")]
            self._keep_row(first + index, *row)

    def _keep_row(self, index: int, codes: list[int], raw: list[str], number: int) -> None:
        source, names = self._source, self._source.names
        kind = source.plain.kind
        problems = []
        for (name, type_), code in zip(self._columns.kinds.items(), codes, strict=True):
            value = raw[names.index(name)] if name in source.types else None
            if code:
                problems.append(Problem(name, *self._worded(type_, code, value, name)))
        text = None if kind == "parquet" else raw[-1] if kind == "json" else self._joined(raw)
        if kind == "json" and len(codes) and codes[0] == 9:
            problems = [Problem(None, "is no JSON object", shown(raw[-1]))]
        self._found.append((number or index + 1, problems, text))

    def _joined(self, raw: list[str]) -> str:
        text, form = io.StringIO(), self._tables.form
        quote = (
            {"quotechar": form.quote}
            if form.quote
            else {"quoting": csv.QUOTE_NONE, "escapechar": "\\"}
        )
        csv.writer(text, delimiter=form.separator, lineterminator="", **quote).writerow(raw)
        return text.getvalue()

    def _worded(self, kind: Wanted, code: int, value: str | None, name: str) -> tuple[str, str]:
        if code == 3:
            filled = "counts as empty, but must be filled"
            return (filled, shown(value)) if value else ("is empty, but must be filled", "")
        if code == 2:
            return "is too large for 32 bits (FLOAT)", shown(value)
        if kind == "BYTES" or kind is None:
            return (
                f"is not {'UTF-8' if self._tables.form.is_utf8 else self._tables.form.encoding}",
                shown(value),
            )
        is_whole = re.fullmatch(r"\s*[+-]?[0-9]+\s*", value or "")
        if kind == "INT":
            return (
                "is too large for 64 bits (INT)" if is_whole else "is not a whole number (INT)",
                shown(value),
            )
        own = self._source.types[name]
        return (
            "is too large for 32 bits (FLOAT)" if own not in _TEXTS else "is not a number (FLOAT)",
            shown(value),
        )

    def _finish(self, cursor: duckdb.DuckDBPyConnection, rejects: str) -> None:
        """Adds the rows that are none, and gives all their lines."""
        rejected = self._rejected(cursor, rejects) if rejects else {}
        self.seen += len(rejected)
        self.bad += len(rejected)
        found = [*self._found]
        lines = self._lines(np.array([*rejected], np.int64), [number for number, *_ in found])
        place, first = lines[0], lines[1]
        kept = [
            BadRow(self._source.file, place, number, problems, raw)
            for number, (_, problems, raw) in zip(lines[2], found, strict=True)
        ]
        kept += [
            BadRow(self._source.file, place, record + first, [problem], raw)
            for record, (problem, raw) in rejected.items()
        ]
        self.bad_rows = sorted(kept, key=lambda row: row.number)[: self._keep]

    def _lines(self, rejected: Any, rows: list[int]) -> tuple[str, int, list[int]]:
        """The place, what is to be added to a record's number, and the number of each row.

        Args:
            rejected: Numbers of records, from 1 after the header, in order.
            rows: Numbers of rows among the others, from 1.
        """
        kind = self._source.plain.kind
        if kind != "csv":
            return ("row" if kind == "parquet" else "line"), 0, rows
        if not self.bad:
            return "row", 0, []
        among = np.searchsorted(rejected - np.arange(len(rejected)), rows, side="right")
        records = (np.array(rows, np.int64) + among).tolist()
        head = self._source.plain.skipped + 1
        is_line = plain.count_lines(self._source.plain) == self.seen + head and self._limit is None
        first = head if is_line else 0
        return ("line" if is_line else "row"), first, [record + first for record in records]

    def _rejected(self, cursor: Any, rejects: str) -> dict[int, tuple[Problem, str]]:
        """What is wrong with rows that DuckDB could not split, by record after the header."""
        query = (
            "SELECT line, any_value(error_type::VARCHAR), any_value(csv_line), "
            f"any_value(error_message), any_value(column_idx) FROM {rejects} GROUP BY 1 ORDER BY 1"
        )
        found: dict[int, tuple[Problem, str]] = {}
        head = 1
        rejected = cursor.sql(query).fetchall()
        last = self.seen + len(rejected)
        for line, kind, raw, message, column in rejected:
            record = line - head - self._source.plain.skipped
            text = raw.rstrip("\r\n")
            is_open = "\n" in text or (record == last and text.count(self._tables.form.quote) % 2)
            broken = kind == "UNQUOTED VALUE" and is_open
            if kind == "LINE SIZE OVER MAXIMUM" or broken:
                raise PipelineStop(
                    f"{self._source.file}: a quotation mark in row {record} is not closed, or the "
                    f"row is longer than 2 MB: {shown(text)}. Correct the file, then run again."
                )
            found[record] = (self._reject(kind, message, column, text), text)
        return found

    def _reject(self, kind: str, message: str, column: int | None, text: str) -> Problem:
        width = len(self._source.types)
        if kind == "INVALID ENCODING":
            name = self._source.names[(column or 1) - 1]
            return Problem(name, "is not UTF-8", shown(text))
        if kind == "UNQUOTED VALUE":
            return Problem(None, "has text beside quotation marks", shown(text))
        counted = re.search(r"Found: (\d+)", message)
        count = counted[1] if counted else "other"
        return Problem(None, f"{count} fields, the header has {width}")

    def _query(self) -> tuple[str, str]:
        scanned, rejects = self._tables.scan(self._source)
        if self._limit is not None:
            scanned = f"(SELECT * FROM {scanned} LIMIT {self._limit})"
        return _checked(scanned, self._source, self._columns, self._tables.form), rejects

    def _unreadable(self, error: Exception) -> PipelineStop:
        if self._source.query:
            why = str(error).split("\n")[0][:500]
            return PipelineStop(
                f"data.sql can't be run: {why}. Correct the query, or use TRY_CAST."
            )
        return plain.unreadable(self._source.file, error)


def stop_at(file: str, bad: int, bad_rows: Sequence[BadRow]) -> PipelineStop:
    """The error about a file with bad rows."""
    more = bad - len(bad_rows)
    rest = [f"  and {more:,} more"] if more else []
    listed = "\n".join([*map(str, bad_rows), *rest])
    return PipelineStop(
        f"{file}: bad rows:\n{listed}\nCorrect or remove them in the file, or correct the column's "
        "type in the schema, then run again."
    )


def shown(value: str | None) -> str:
    """A value, not longer than a line takes."""
    text = value or ""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def kind_of(own: str) -> Kind | None:
    """The kind of a type of DuckDB's; None for what no column of a table of examples can have."""
    if own == '"NULL"':
        return "BYTES"
    if own in _INTEGERS or own == "BOOLEAN":
        return "INT"
    if own in ("FLOAT", "DOUBLE") or own.startswith("DECIMAL"):
        return "FLOAT"
    is_text = own in _TEXTS | _MOMENTS | _TIMES | {"DATE"} or own.startswith("ENUM")
    return "BYTES" if is_text and not _is_nested(own) else None


def fits(own: str, kind: Wanted) -> bool:
    """Whether a column of a type can be read as a kind; a text may be a number."""
    found = kind_of(own)
    numbers = found in ("INT", "FLOAT") and kind in _NUMBERS
    return kind is None or own == '"NULL"' or found == kind or numbers or own in ("VARCHAR", "JSON")


def value_of(kind: Wanted, own: str, raw: str, form: CsvFormat, is_label: bool) -> str:
    """SQL for a value as BIGINT, FLOAT or VARCHAR; null where it is missing or none."""
    is_text = own in ("VARCHAR", "JSON") or own.startswith("ENUM")
    if kind in _NUMBERS:
        number = f"{raw}::VARCHAR" if own != "VARCHAR" else raw
        return _number(str(kind), number, form) if is_text else _cast(str(kind), own, raw)
    if kind is None and not is_text:
        return raw
    text = _text(own, raw)
    if is_label and form.nulls:
        text = f"CASE WHEN trim({text}) NOT IN ({_listed(form.nulls)}) THEN {text} END"
    return f"nullif({text}, '')"


def _cast(kind: str, own: str, raw: str) -> str:
    """SQL for a number of another type."""
    if kind == "INT":
        has_fraction = own in ("FLOAT", "DOUBLE") or own.startswith("DECIMAL")
        number = f"TRY_CAST({raw} AS BIGINT)"
        return f"CASE WHEN {raw} = trunc({raw}) THEN {number} END" if has_fraction else number
    type_ = _SQL_TYPES[kind]
    if own in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN NOT isnan({raw}) THEN TRY_CAST({raw} AS {type_}) END"
    return f"TRY_CAST({raw}{'::VARCHAR' if own.startswith('DECIMAL') else ''} AS {type_})"


def _text(own: str, raw: str) -> str:
    """SQL for a value as text; a moment as pandas prints it, in UTC if it has a zone."""
    if own == "VARCHAR":
        return raw
    if own == "BLOB":
        return f"TRY(decode({raw}))"
    if own not in _MOMENTS and not own.startswith("TIME"):
        return f"{raw}::VARCHAR"
    zone = " || '+00:00'" if own == "TIMESTAMP WITH TIME ZONE" else ""
    if own in _TIMES:
        moment, form = f"(DATE '1970-01-01' + {raw}::TIME)", "%H:%M:%S"
    else:
        moment = f"timezone('UTC', {raw})" if zone else raw
        form = "%Y-%m-%d %H:%M:%S"
    if own == "TIMESTAMP_NS":
        nanoseconds = f"strftime({raw}, '{form}.%n')"
        text = f"regexp_replace({nanoseconds}, '(\\.\\d{{6}})000$', '\\1')"
    else:
        text = f"strftime({moment}::TIMESTAMP, '{form}.%f')"
    return f"regexp_replace({text}, '\\.0+$', ''){zone}"


def _checked(scanned: str, source: _Source, columns: Columns, form: CsvFormat) -> str:
    """SQL for c0, c1, ...: the values; and of bad rows `codes` (a number a column) and `raw`.

    Codes: 0 good, 1 no value of its type, 2 infinite, 3 missing, 9 the whole row is none.
    """
    names = source.names
    values, codes, wrong = [], [], []
    is_json = source.plain.kind == "json"
    for i, (name, kind) in enumerate(columns.kinds.items()):
        if name not in source.types:
            values.append(f"NULL::{_SQL_TYPES[kind]} AS c{i}")
            tests = [("3", "true")] if name in columns.filled else []
        else:
            own, raw = source.types[name], f"r{names.index(name)}"
            values.append(f"{value_of(kind, own, raw, form, name == columns.label)} AS c{i}")
            tests = [*_wrongs(kind, own, raw, f"c{i}", form, name in columns.filled)]
        wrong += [test for _, test in tests]
        if is_json:
            tests = [("9", "NOT is_object"), *tests]
        cases = " ".join(f"WHEN {test} THEN {code}" for code, test in tests)
        codes.append(f"CASE {cases} ELSE 0 END" if cases else "0")
    raws = [f"r{i}::VARCHAR" for i in range(len(names))] + (["line"] if is_json else [])
    is_bad = " OR ".join(wrong + (["NOT is_object"] if is_json else [])) or "false"
    out = ", ".join(f"c{i}" for i in range(len(columns.kinds)))
    number = "n" if is_json else "NULL::BIGINT"
    return (
        f"SELECT {out}, CASE WHEN bad THEN [{', '.join(codes)}] END AS codes, "
        f"CASE WHEN bad THEN [{', '.join(raws)}] END AS raw, {number} AS n "
        f"FROM (SELECT *, ({is_bad}) AS bad FROM (SELECT *, {', '.join(values)} FROM {scanned}))"
    )


def _wrongs(
    kind: Wanted, own: str, raw: str, value: str, form: CsvFormat, is_filled: bool
) -> Iterator[tuple[str, str]]:
    """Yields codes, and SQL for whether a value has it."""
    is_text = own in ("VARCHAR", "JSON") or own.startswith("ENUM")
    if kind in _NUMBERS:
        unless = f"{value} IS NULL AND {raw} IS NOT NULL"
        if is_text:
            nulls = _listed(["", *form.nulls])
            yield (
                "1",
                f"CASE WHEN {unless} THEN trim({raw}::VARCHAR) NOT IN ({nulls}) ELSE false END",
            )
        elif own in ("FLOAT", "DOUBLE"):
            yield "1", f"({unless} AND NOT isnan({raw}))"
        else:
            yield "1", f"({unless})"
        if kind != "INT":
            yield "2", f"isinf({value})"
    elif own == "BLOB":
        yield "1", f"({value} IS NULL AND {raw} IS NOT NULL AND octet_length({raw}) > 0)"
    elif is_text and not form.is_utf8:
        yield "1", f"contains({raw}, '\ufffd')"
    if is_filled:
        yield "3", f"{value} IS NULL"


def _number(kind: str, text: str, form: CsvFormat) -> str:
    """SQL for the number that a text is; a cast alone would take 2.5 for 3, and 1_000."""
    clean = text
    if form.thousands:
        clean = f"replace({clean}, {literal(form.thousands)}, '')"
    if form.decimal != ".":
        clean = f"replace({clean}, {literal(form.decimal)}, '.')"
    is_number = f"regexp_full_match({text}, {literal(_pattern(kind, form))})"
    named = [word for word in form.nulls if re.fullmatch(_pattern("FLOAT", form), word)]
    if named:
        is_number += f" AND trim({text}) NOT IN ({_listed(named)})"
    return f"CASE WHEN {is_number} THEN TRY_CAST({clean} AS {_SQL_TYPES[kind]}) END"


def _pattern(kind: str, form: CsvFormat, whole: bool = False) -> str:
    digits, point = "[0-9]+", re.escape(form.decimal)
    if form.thousands:
        group = re.escape(form.thousands)
        digits = f"([0-9]{{1,3}}({group}[0-9]{{3}})+|[0-9]+)"
    if kind == "INT":
        number = digits if whole else f"{digits}({point}0*)?"
    else:
        number = f"({digits}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?"
    return f"[ \t]*[+-]?{number}[ \t]*"


def _json_lines(path: str, keys: list[str]) -> str:
    """SQL for the lines of a file: `n` counts them, r0, r1, ... are the texts at the keys.

    Read as CSV of one column: a separator and a quotation mark that JSON cannot have.
    """
    pointers = ", ".join(map(_pointer, keys))
    texts = "".join(f", texts[{i}] AS r{i - 1}" for i in range(1, len(keys) + 1))
    extracted = (
        f"CASE WHEN is_object THEN json_extract_string(line, [{pointers}]) END" if keys else "NULL"
    )
    return (
        f"SELECT n, line, is_object{texts} FROM (SELECT *, {extracted} AS texts FROM ("
        "SELECT *, coalesce(CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' END, false) "
        "AS is_object FROM (SELECT *, row_number() OVER () AS n FROM "
        f"read_csv({path}, auto_detect = false, header = false, delim = '\x1f', quote = '', "
        "escape = '', columns = {'line': 'VARCHAR'}, max_line_size = 16000000))"
        "WHERE trim(line) <> ''))"
    )


def _pointer(key: str) -> str:
    return literal("/" + key.replace("~", "~0").replace("/", "~1"))


def _as_bytes(column: pa.Array) -> pa.Array:
    return column.cast(pa.binary()) if pa.types.is_string(column.type) else column


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(map(literal, texts)) or "NULL"


def _fetched(connection: duckdb.DuckDBPyConnection, file: str, query: str) -> list[Any]:
    try:
        return connection.sql(query).fetchall()
    except (duckdb.Error, OSError) as error:
        raise plain.unreadable(file, error) from error


def _is_nested(own: str) -> bool:
    return own.endswith("]") or own.startswith(("STRUCT", "MAP", "UNION", "VARIANT", "INTERVAL"))


def _shortened(own: str) -> str:
    return own if len(own) <= 40 else own[:40] + "…"


def wanted_of(names: list[str], wanted: list[str]) -> list[str]:
    """Of the names those that are wanted."""
    return [name for name in names if name in wanted]


def _check_names(file: str, names: list[str], why: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    mistakes = [f"column '{name}' is there {names.count(name)} times" for name in twice]
    mistakes += [f"column {i} has no name" for i, name in enumerate(names, 1) if not name.strip()]
    if not names:
        mistakes = ["it has no columns"]
    if mistakes or why:
        cut = "; ".join([*mistakes[:5], *(["…"] if len(mistakes) > 5 else [])])
        told = f"the header can't be used: {cut}. " if mistakes else ""
        raise PipelineStop(f"{file}: {told}{why or 'Name each column once, then run again.'}")


def _check_case(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise PipelineStop(
                f"SQL does not tell the columns '{other}' and '{name}' apart. Rename one of them."
            )


def _differences(header: list[str], names: list[str]) -> Iterator[str]:
    missing = [name for name in names if name not in header]
    others = [name for name in header if name not in names]
    for name in others[:5]:
        close = difflib.get_close_matches(name, missing, 1, 0.5)
        guess = f" (did you mean '{close[0]}'?)" if close else ""
        yield f"column {shown(name)} is not in the schema{guess}"
    if len(others) > 5:
        yield f"and {len(others) - 5} more"
    if missing:
        yield f"missing: {', '.join(missing)}"


def _other_columns(file: str, names: list[str], first: str, expected: list[str]) -> PipelineStop:
    more = [name for name in names if name not in expected]
    fewer = [name for name in expected if name not in names]
    differ = [
        f"{len(group)} {word} ({', '.join(group[:5])})"
        for word, group in (("more", more), ("fewer", fewer))
        if group
    ]
    return PipelineStop(
        f"{file} has other columns than {first}: {' and '.join(differ)}. All files must have the "
        "same; correct them, or narrow data.pattern."
    )
