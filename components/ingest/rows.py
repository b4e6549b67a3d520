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
ones. One thread: rows keep their order, and those who read many files do so side by side.
"""

import contextlib
import difflib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import PipelineStop
from components.ingest import plain
from components.ingest.settings import CsvFormat, Kind

SHOWN = 10
"""So many bad rows are kept if nothing else is said."""
MOST_LISTED = 250_000
"""Bad rows of one file, which are in memory together."""
ARROW: dict[str, pa.DataType] = {"INT": pa.int64(), "FLOAT": pa.float32(), "BYTES": pa.string()}
_VALUES = 1 << 18
"""Of all columns together, in a batch."""
_MEMORY = "1GB"
_KINDS: tuple[Kind, ...] = ("INT", "FLOAT", "BYTES")
"""From the narrowest to the widest."""
_NUMBERS = ("INT", "FLOAT", "DOUBLE")
_SQL = {"INT": "BIGINT", "FLOAT": "FLOAT", "DOUBLE": "DOUBLE", "BYTES": "VARCHAR", None: "VARCHAR"}
_INTEGERS = {f"{u}{size}INT" for u in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")}
_INTEGERS |= {"INTEGER", "UINTEGER", "BOOLEAN"}
_TEXTS = {"VARCHAR", "BLOB", "UUID", "JSON"}
_NULL = '"NULL"'
_KEYS_LOOKED_AT = 10_000
_BATCH = "a batch of rows"
"""No name of a table of a query."""

Wanted = Kind | Literal["DOUBLE"] | None
"""What a column is read as. DOUBLE: a FLOAT of 64 bits, to look at and not to train from; None: as
it is in the file, text in CSV and JSON."""
_Numbers: TypeAlias = npt.NDArray[np.int64]


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
    of: Mapping[str, str] = {}
    """The file's column, where one comes out under another name, too."""


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
    raw: str
    """The row as it stands in the file; of Parquet, an object of texts as JSON."""

    def __str__(self) -> str:
        """A line for each problem."""
        return "\n".join(f"  {self.place} {self.number}{problem}" for problem in self.problems)

    def as_json(self) -> str:
        """A line of a list of bad rows."""
        reasons = [str(problem).lstrip(",: ") for problem in self.problems]
        record = {"file": self.file, self.place: self.number, "reasons": reasons, "raw": self.raw}
        return json.dumps(record, ensure_ascii=False)


class Loaded(NamedTuple):
    """What came of files that became a table."""

    rows: int = 0
    bad: int = 0
    bad_rows: Sequence[BadRow] = ()
    """The first few of each file."""


class _Source(NamedTuple):
    """A file that DuckDB may read, with columns r0, r1, ...; of JSON, `line` and `n` too."""

    file: str
    plain: plain.Plain
    types: dict[str, str]
    """DuckDB's type of each column, in order."""
    query: str = ""
    """SQL in place of a file."""


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
                raise self._without_rows(file)
            if found and (mistakes := [*_differences([*kinds], [*found], f"in {files[0]}")]):
                raise PipelineStop(
                    f"{file} has other columns than {files[0]}: {'; '.join(mistakes)}. All files "
                    "must have the same; correct them, or narrow data.pattern."
                )
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
        seen: dict[str, str] = {}
        for column in columns.kinds:
            if (other := seen.setdefault(column.lower(), column)) != column:
                raise PipelineStop(
                    f"SQL does not tell the columns '{other}' and '{column}' apart. Rename one."
                )
        types = {column: self._table_type(column, k, files) for column, k in columns.kinds.items()}
        listed = ", ".join(f"{quoted(column)} {type_}" for column, type_ in types.items())
        self.connection.execute(f"CREATE TABLE {quoted(name)} ({listed})")

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
        seen, bad, bad_rows = 0, 0, list[BadRow]()
        for file in files:
            left = None if limit is None else limit - seen
            if left is None or left > 0:
                reading = self.read(file, columns, keep, left)
                for batch in reading.batches(as_text=True):
                    self.connection.register(_BATCH, batch)
                    self.connection.execute(f"INSERT INTO {quoted(name)} FROM {quoted(_BATCH)}")
                    self.connection.unregister(_BATCH)
                seen, bad = seen + reading.seen, bad + reading.bad
                bad_rows += reading.bad_rows
        return Loaded(seen - bad, bad, bad_rows)

    def select(self, query: str, columns: Columns, keep: int, loaded: Loaded) -> "Reading":
        """Reads the result of a query, over rows that were loaded, as if it were Parquet."""
        types = {row[0]: row[1] for row in self.connection.sql(f"DESCRIBE {query}").fetchall()}
        result = f"(\n{query.rstrip().rstrip(';')}\n)"
        own = _Source("the result of data.sql", plain.Plain("parquet", "", [], 0), types, result)
        return Reading(self, own, columns, keep, None, loaded)

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
            return f"({_json_lines(path, [*source.types])})", ""
        quote = literal(self.form.quote)
        names = ", ".join(f"'r{i}': 'VARCHAR'" for i in range(len(source.types)))
        return (
            f"read_csv({path}, auto_detect = false, header = true, skip = {source.plain.skipped}, "
            f"delim = {literal(self.form.separator)}, quote = {quote}, escape = {quote}, "
            f"columns = {{{names}}}, store_rejects = true, rejects_table = '{rejects}', "
            f"rejects_scan = '{rejects}_scan', rejects_limit = 0)",
            rejects,
        )

    def fetched(self, file: str, query: str) -> list[Any]:
        """The rows of a query over a file.

        Raises:
            PipelineStop: If it can't be read.
        """
        try:
            return self.connection.sql(query).fetchall()
        except (duckdb.Error, OSError) as error:
            raise plain.unreadable(file, error) from error

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
        if not any("\n" in name or "\r" in name for name in source.plain.header):
            with contextlib.suppress(duckdb.Error):
                self.connection.sql(f"SELECT count(*) FROM {self.scan(source)[0]}").fetchall()
                return source
        return source._replace(plain=plain.with_one_line_end(source.plain))

    def _types(self, file: str, opened: plain.Plain) -> dict[str, str]:
        why, names = "", opened.header
        if opened.kind == "csv":
            why = plain.hint(opened.header, self.form)
        elif opened.kind == "json":
            names = self._keys(opened, _KEYS_LOOKED_AT)
        types = ["VARCHAR"] * len(names)
        if opened.kind == "parquet":
            found = self.fetched(file, f"DESCRIBE FROM read_parquet({literal(opened.path)})")
            names = pq.read_schema(opened.path).names  # DuckDB renames 'A' beside 'a'.
            types = [row[1] for row in found]
        _check_names(file, names, why)
        return dict(zip(names, types, strict=True))

    def _keys(self, opened: plain.Plain, limit: int | None) -> list[str]:
        """The keys of a file of JSON lines, in the order they come."""
        only = f"WHERE n <= {limit}" if limit else ""
        query = (
            "SELECT CASE WHEN is_object THEN json_keys(line) END, min(n) FROM "
            f"({_json_lines(literal(opened.path), [])}) {only} GROUP BY 1 ORDER BY 2"
        )
        rows = self.fetched(opened.path, query)
        return [*dict.fromkeys(key for row in rows for key in row[0] or [])]

    def _table_type(self, name: str, kind: Wanted, files: Sequence[str]) -> str:
        if kind is not None:
            return _SQL[kind]
        types = {self._source(file).types.get(name) for file in files} - {None}
        return str(types.pop()) if len(types) == 1 else "VARCHAR"

    def _check(self, source: _Source, columns: Columns) -> None:
        """Compares a file's columns with those that are wanted."""
        kinds = {name: kind for name, kind in columns.kinds.items() if name not in columns.of}
        missing = {*kinds, *columns.of.values()} - {*source.types, *columns.optional}
        if missing and source.plain.kind == "json":
            source.types.update(dict.fromkeys(self._keys(source.plain, None), "VARCHAR"))
        own = {n: type_ for n, type_ in source.types.items() if n in kinds or not _is_nested(type_)}
        wanted = [name for name in kinds if name in own or name not in columns.optional]
        there = [name for name in own if columns.exact or name in kinds]
        if mistakes := [*_differences(there, wanted, "in the schema")]:
            why = plain.hint([*source.types], self.form) if source.plain.kind == "csv" else ""
            advice = "make and review the schema anew" if columns.exact else "name other columns"
            raise PipelineStop(
                f"{source.file}: the columns do not fit: {'; '.join(mistakes)}. "
                + (why or f"Correct the file, or {advice}.")
            )
        wrong = [
            f"column '{name}' is {own[name][:40]} in the file and {kind} in the schema"
            for name, kind in kinds.items()
            if name in own and not fits(own[name], kind)
        ]
        if wrong:
            raise PipelineStop(
                f"{source.file} does not fit the schema: {'; '.join(wrong)}. Write the columns "
                "with the schema's types, or make and review the schema anew."
            )

    def _inferred(self, source: _Source, limit: int) -> tuple[dict[str, Kind], int]:
        """The kind of each column that can have one, and how many rows were looked at."""
        first = f"(SELECT * FROM {self.scan(source)[0]} LIMIT {limit})"
        is_typed = source.plain.kind == "parquet"
        widest = [] if is_typed else [self._width(source, i, n) for i, n in enumerate(source.types)]
        query = f"SELECT {', '.join(['count(*)', *widest])} FROM {first}"
        [(rows, *found)] = self.fetched(source.file, query)
        if is_typed:
            own = {name: kind_of(type_) for name, type_ in source.types.items()}
            return {name: kind for name, kind in own.items() if kind}, rows
        kinds = (_KINDS[-1 if width == 0 else (width or 1) - 1] for width in found)
        return dict(zip(source.types, kinds, strict=True)), rows

    def _width(self, source: _Source, index: int, name: str) -> str:
        """SQL for the widest value of a column: 1 INT, 2 FLOAT, 3 text; 0 if all stand for none."""
        form, text = self.form, f"r{index}"
        number = _number("FLOAT", text, form)
        if source.plain.kind == "json":  # "12" in quotation marks is a text there.
            number = f"CASE WHEN json_type(line, {_pointer(name)}) <> 'VARCHAR' THEN {number} END"
        whole = literal(_pattern("INT", form, whole=True))
        is_whole = (
            f"regexp_full_match({text}, {whole}) AND {_number('INT', text, form)} IS NOT NULL"
        )
        return (
            f"max(CASE WHEN {text} = '' THEN NULL WHEN trim({text}) IN ({_listed(form.nulls)}) "
            f"THEN 0 WHEN isfinite({number}) THEN CASE WHEN {is_whole} THEN 1 ELSE 2 END "
            f"WHEN {text} IS NOT NULL THEN 3 END)"
        )

    def _without_rows(self, file: str) -> PipelineStop:
        reading = self.read(file, Columns(dict.fromkeys(self._source(file).types)))
        if not any(len(batch) for batch in reading) and reading.bad:
            return stop_at(file, reading.bad, reading.bad_rows)
        return PipelineStop(f"{file} has a header, but no rows. Fill the file or move it away.")


class Reading:
    """The good rows of a file, as Arrow batches in its order; what was bad when all is read.

    INT is int64, FLOAT float32 and BYTES binary.
    """

    def __init__(
        self,
        tables: Tables,
        source: _Source,
        columns: Columns,
        keep: int,
        limit: int | None,
        loaded: Loaded | None = None,
    ) -> None:
        """Made by `Tables.read` and `Tables.select`."""
        self._tables, self._source, self._columns = tables, source, columns
        self._keep, self._limit, self._loaded = keep, limit, loaded or Loaded()
        self._found: list[tuple[int, list[Problem], str]] = []
        self._rows = 0
        self.bad = self._loaded.bad
        """Bad rows so far; at the end those with another number of fields are among them."""
        self.bad_rows: list[BadRow] = []
        """The first few, when all is read."""
        self.numbers: _Numbers = np.arange(0)
        """Of the last batch's rows among all, from 1, without those that `unsplit` gives; of JSON,
        their lines."""

    @property
    def seen(self) -> int:
        """Rows of the files so far, good and bad."""
        return self._loaded.rows + self._loaded.bad if self._source.query else self._rows

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yields the good rows; a batch may have none, and there is one at least."""
        return self.batches()

    def batches(self, as_text: bool = False) -> Iterator[pa.RecordBatch]:
        """The same; BYTES as strings if told so."""
        scanned, rejects = self._tables.scan(self._source)
        if self._limit is not None:
            scanned = f"(SELECT * FROM {scanned} LIMIT {self._limit})"
        query = _checked(scanned, self._source, self._columns, self._tables.form)
        cursor, size = self._tables.connection.cursor(), _VALUES // len(self._columns.kinds)
        try:
            reader = cursor.sql(query).to_arrow_reader(max(1024, size))
            none = pa.RecordBatch.from_pylist([], reader.schema)
            for rows in chain(reader, [none]):
                yield self._good(rows, as_text)
            self._finish(self._rejected(cursor, rejects) if rejects else {})
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def bad_so_far(self) -> list[BadRow]:
        """The first few before all is read; they count rows, without those of other lengths."""
        found = (BadRow(self._source.file, "row", *row) for row in self._found)
        return [*self._loaded.bad_rows, *found]

    def unsplit(self) -> list[int]:
        """Rows of CSV, from 1 after the header, without the header's number of fields or UTF-8."""
        scanned, rejects = self._tables.scan(self._source)
        if not rejects:
            return []
        self._tables.fetched(self._source.file, f"SELECT count(COLUMNS(*)) FROM {scanned}")
        return [*self._rejected(self._tables.connection, rejects)]

    def _good(self, rows: pa.RecordBatch, as_text: bool) -> pa.RecordBatch:
        names = [*self._columns.kinds]
        columns = [rows[f"c{i}"] for i in range(len(names))]
        columns = columns if as_text else [_as_bytes(column) for column in columns]
        batch = pa.RecordBatch.from_arrays(columns, names)
        is_json = self._source.plain.kind == "json"
        numbers: _Numbers = np.arange(self._rows, self._rows + len(rows)) + 1
        self.numbers = rows["n"].to_numpy() if is_json else numbers
        self._rows += len(rows)
        if rows["whats"].null_count == len(rows):
            return batch
        is_bad = rows["whats"].is_valid().to_numpy(zero_copy_only=False)
        self.bad += int(is_bad.sum())
        for index in np.flatnonzero(is_bad)[: max(0, self._keep - len(self._found))].tolist():
            row = [rows[name][index].as_py() for name in ("whats", "raw")]
            self._found.append((int(self.numbers[index]), *self._problems(*row)))
        self.numbers = self.numbers[~is_bad]
        return batch.filter(pa.array(~is_bad))

    def _problems(self, whats: list[str | None], raw: list[str]) -> tuple[list[Problem], str]:
        """What is wrong with a row, and the row."""
        values = dict(zip([*self._source.types, None], raw, strict=False))  # None: a line of JSON
        problems = []
        for name, what in zip([*self._columns.kinds, None], whats, strict=False):
            value = values.get(self._columns.of.get(str(name), name))
            if what and name not in self._columns.of:
                is_gap = not value and what.startswith("is empty")
                problems.append(Problem(name, what, "" if is_gap else shown(value)))
        if self._source.plain.kind == "json":
            return problems[-1:] if not problems[-1].column else problems, raw[-1]
        if self._source.plain.kind == "parquet":
            return problems, json.dumps(values, ensure_ascii=False)
        separator, quote = self._tables.form.separator, self._tables.form.quote
        return problems, separator.join(
            f"{quote}{text.replace(quote, quote * 2)}{quote}"
            if quote and {separator, quote, "\n", "\r"} & {*text}
            else text
            for text in (value or "" for value in raw)
        )

    def _finish(self, rejected: dict[int, tuple[Problem, str]]) -> None:
        """Adds the rows that are none, and gives all their lines."""
        self._rows += len(rejected)
        self.bad += len(rejected)
        place, head = {"parquet": "row", "json": "line"}.get(self._source.plain.kind, ""), 0
        if not place:
            head = self._source.plain.skipped + 1
            is_line = self.bad and self._limit is None
            is_line = is_line and plain.count_lines(self._source.plain) == self._rows + head
            place, head = ("line", head) if is_line else ("row", 0)
        numbers = among_all(np.array([n for n, *_ in self._found], np.int64), [*rejected])
        kept = [(n, *found[1:]) for n, found in zip(numbers.tolist(), self._found, strict=True)]
        kept += [(record, [problem], raw) for record, (problem, raw) in rejected.items()]
        self.bad_rows = [
            *self._loaded.bad_rows,
            *(
                BadRow(self._source.file, place, number + head, problems, raw)
                for number, problems, raw in sorted(kept, key=lambda row: row[0])[: self._keep]
            ),
        ]

    def _rejected(self, cursor: Any, rejects: str) -> dict[int, tuple[Problem, str]]:
        """What is wrong with rows that DuckDB could not split, by record after the header."""
        query = (
            "SELECT line, any_value(error_type::VARCHAR), any_value(csv_line), "
            f"any_value(error_message), any_value(column_idx) FROM {rejects} GROUP BY 1 ORDER BY 1"
        )
        found: dict[int, tuple[Problem, str]] = {}
        rejected = cursor.sql(query).fetchall()
        last = self._rows + len(rejected)
        for line, kind, raw, message, column in rejected:
            record = line - 1 - self._source.plain.skipped
            text = raw.rstrip("\r\n")
            is_open = "\n" in text or (record == last and text.count(self._tables.form.quote) % 2)
            if kind == "LINE SIZE OVER MAXIMUM" or (kind == "UNQUOTED VALUE" and is_open):
                raise PipelineStop(
                    f"{self._source.file}: a quotation mark in row {record} is not closed, or the "
                    f"row is longer than 2 MB: {shown(text)}. Correct the file, then run again."
                )
            found[record] = (self._reject(kind, message, column, text), text)
        return found

    def _reject(self, kind: str, message: str, column: int | None, text: str) -> Problem:
        if kind == "INVALID ENCODING":
            return Problem([*self._source.types][(column or 1) - 1], "is not UTF-8", shown(text))
        if kind == "UNQUOTED VALUE":
            return Problem(None, "has text beside quotation marks", shown(text))
        counted = re.search(r"Found: (\d+)", message)
        count = counted[1] if counted else "other"
        return Problem(None, f"{count} fields, the header has {len(self._source.types)}")

    def _unreadable(self, error: Exception) -> PipelineStop:
        if self._source.query:
            why = str(error).split("\n")[0][:500]
            return PipelineStop(
                f"data.sql can't be run: {why}. Correct the query, or use TRY_CAST."
            )
        return plain.unreadable(self._source.file, error)


def among_all(numbers: _Numbers, unsplit: Sequence[int]) -> _Numbers:
    """Numbers of rows of CSV that count the split ones alone, as numbers among all rows."""
    before = np.array(unsplit, np.int64) - np.arange(len(unsplit))
    return numbers + np.searchsorted(before, numbers, side="right")


def check_not_many(file: str, bad: int, bad_rows: Sequence[BadRow]) -> None:
    """Stops at more bad rows than a list of one file may have.

    Raises:
        PipelineStop: With the first of them.
    """
    if bad > MOST_LISTED:
        raise stop_at(file, bad, bad_rows[:SHOWN])


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
    if own in _INTEGERS:
        return "INT"
    if own in ("FLOAT", "DOUBLE") or own.startswith("DECIMAL"):
        return "FLOAT"
    is_text = own in _TEXTS | {_NULL, "DATE"} or own.startswith(("ENUM", "TIME"))
    return "BYTES" if is_text and not _is_nested(own) else None


def fits(own: str, kind: Wanted) -> bool:
    """Whether a column of a type can be read as a kind; a text may be a number."""
    found = kind_of(own)
    numbers = found in ("INT", "FLOAT") and kind in _NUMBERS
    return kind is None or found == kind or numbers or own in (_NULL, "VARCHAR", "JSON")


def value_of(kind: Wanted, own: str, raw: str, form: CsvFormat, is_label: bool) -> str:
    """SQL for a value as BIGINT, FLOAT or VARCHAR; null where it is missing or none."""
    is_text = _is_text(own)
    if kind in _NUMBERS:
        return _number(str(kind), f"{raw}::VARCHAR", form) if is_text else _cast(kind, own, raw)
    if kind is None and not is_text and own != "BLOB":
        return raw
    text = _text(own, raw)
    if is_label and form.nulls:
        text = f"CASE WHEN trim({text}) NOT IN ({_listed(form.nulls)}) THEN {text} END"
    return f"nullif({text}, '')"


def _is_text(own: str) -> bool:
    return own in ("VARCHAR", "JSON") or own.startswith("ENUM")


def _is_nested(own: str) -> bool:
    return own.endswith("]") or own.startswith(("STRUCT", "MAP", "UNION", "VARIANT", "INTERVAL"))


def _cast(kind: Wanted, own: str, raw: str) -> str:
    """SQL for a number of another type; DuckDB's cast rounds, and makes infinity of a large one."""
    type_ = _SQL[kind]
    if kind == "INT" and (own in ("FLOAT", "DOUBLE") or own.startswith("DECIMAL")):
        return f"CASE WHEN {raw} = trunc({raw}) THEN TRY_CAST({raw} AS {type_}) END"
    if own in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN NOT isnan({raw}) THEN TRY_CAST({raw} AS {type_}) END"
    return f"TRY_CAST({raw}{'::VARCHAR' if own.startswith('DECIMAL') else ''} AS {type_})"


def _text(own: str, raw: str) -> str:
    """SQL for a value as text; a moment as pandas prints it, in UTC if it has a zone."""
    if own == "BLOB":
        return f"TRY(decode({raw}))"
    if not own.startswith("TIME"):
        return raw if own == "VARCHAR" else f"{raw}::VARCHAR"
    zone = " || '+00:00'" if own == "TIMESTAMP WITH TIME ZONE" else ""
    moment, form = f"{raw}::TIMESTAMP", "%Y-%m-%d %H:%M:%S.%f"
    if own.startswith("TIME") and not own.startswith("TIMESTAMP"):
        moment, form = f"(DATE '1970-01-01' + {raw}::TIME)", "%H:%M:%S.%f"
    elif zone:
        moment = f"timezone('UTC', {raw})"
    elif own == "TIMESTAMP_NS":
        moment, form = raw, "%Y-%m-%d %H:%M:%S.%n"
    text = f"regexp_replace(strftime({moment}, '{form}'), '(\\.\\d{{6}})000$', '\\1')"
    return f"regexp_replace({text}, '\\.0+$', ''){zone}"


def _checked(scanned: str, source: _Source, columns: Columns, form: CsvFormat) -> str:
    """SQL for c0, c1, ...: the values; and of bad rows `whats`, what is wrong with each, and `raw`.

    The last of `whats` is of the whole row, in JSON.
    """
    names, is_json = [*source.types], source.plain.kind == "json"
    values, whats, wrong = [], [], []
    for i, (column, kind) in enumerate(columns.kinds.items()):
        name, is_filled = columns.of.get(column, column), column in columns.filled
        own, raw = source.types.get(name, _NULL), "NULL"
        if name in source.types:
            raw = f"r{names.index(name)}"
            values.append(f"{value_of(kind, own, raw, form, name == columns.label)} AS c{i}")
        else:
            values.append(f"NULL::{_SQL[kind]} AS c{i}")
        tests = [*_wrongs(kind, own, raw, f"c{i}", form, is_filled)]
        wrong += [test for _, test in tests]
        cases = " ".join(f"WHEN {test} THEN {what}" for what, test in tests)
        whats.append(f"CASE {cases} END" if cases else "NULL")
    raws = [f"r{i}::VARCHAR" for i in range(len(names))]
    if is_json:
        wrong, raws = [*wrong, "NOT is_object"], [*raws, "line"]
        whats.append("CASE WHEN NOT is_object THEN 'is no JSON object' END")
    out = ", ".join(f"c{i}" for i in range(len(columns.kinds)))
    return (
        f"SELECT {out}, CASE WHEN bad THEN [{', '.join(whats)}] END AS whats, "
        f"CASE WHEN bad THEN [{', '.join(raws)}] END AS raw{', n' if is_json else ''} FROM ("
        f"SELECT *, ({' OR '.join(wrong) or 'false'}) AS bad FROM "
        f"(SELECT *, {', '.join(values)} FROM {scanned}))"
    )


def _wrongs(
    kind: Wanted, own: str, raw: str, value: str, form: CsvFormat, is_filled: bool
) -> Iterator[tuple[str, str]]:
    """Yields SQL for what may be wrong with a value, and for whether it is."""
    if raw != "NULL" and kind in _NUMBERS:
        is_none = f"{value} IS NULL AND {raw} IS NOT NULL"
        if _is_text(own):
            gaps = _listed(["", *form.nulls])
            is_none = (
                f"CASE WHEN {is_none} THEN trim({raw}::VARCHAR) NOT IN ({gaps}) ELSE false END"
            )
        elif own in ("FLOAT", "DOUBLE"):
            is_none = f"({is_none} AND NOT isnan({raw}))"
        large = literal(f"is too large for {64 if kind == 'INT' else 32} bits ({kind})")
        if kind == "INT":
            whole = f"regexp_full_match({raw}::VARCHAR, '\\s*[+-]?[0-9]+\\s*')"
            yield f"if({whole}, {large}, 'is not a whole number (INT)')", f"({is_none})"
        else:
            yield large, f"isinf({value})"
            yield "'is not a number (FLOAT)'" if _is_text(own) else large, f"({is_none})"
    elif own == "BLOB":
        yield "'is not UTF-8'", f"({value} IS NULL AND octet_length({raw}) > 0)"
    elif _is_text(own) and not form.is_utf8:
        yield literal(f"is not {form.encoding}"), f"contains({raw}, '\ufffd')"
    if is_filled:
        gap = f"if({raw}::VARCHAR <> '', 'counts as', 'is')"
        yield f"{gap} || ' empty, but must be filled'", f"{value} IS NULL"


def _number(kind: str, text: str, form: CsvFormat) -> str:
    """SQL for the number that a text is; a cast alone would take 2.5 for 3, and 1_000."""
    clean = text
    for unit in form.units:
        clean = f"replace({clean}, {literal(unit)}, '')"
    if form.thousands:
        clean = f"replace({clean}, {literal(form.thousands)}, '')"
    if form.decimal != ".":
        clean = f"replace({clean}, {literal(form.decimal)}, '.')"
    is_number = f"regexp_full_match({text}, {literal(_pattern(kind, form))})"
    named = [word for word in form.nulls if re.fullmatch(_pattern("FLOAT", form), word)]
    if named:
        is_number += f" AND trim({text}) NOT IN ({_listed(named)})"
    return f"CASE WHEN {is_number} THEN TRY_CAST({clean} AS {_SQL[kind]}) END"


def _pattern(kind: str, form: CsvFormat, whole: bool = False) -> str:
    digits, point = "[0-9]+", re.escape(form.decimal)
    if form.thousands:
        group = re.escape(form.thousands)
        digits = f"([0-9]{{1,3}}({group}[0-9]{{3}})+|[0-9]+)"
    if kind == "INT":
        number = digits if whole else f"{digits}({point}0*)?"
    else:
        number = f"({digits}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?"
    unit = f"(({'|'.join(map(re.escape, form.units))})[ \t]*)?" if form.units else ""
    return f"[ \t]*{unit}[+-]?{unit}{number}[ \t]*{unit}"


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


def _check_names(file: str, names: list[str], why: str) -> None:
    counts = Counter(names)
    mistakes = [f"column '{name}' is there {n} times" for name, n in counts.items() if n > 1]
    mistakes += [f"column {i} has no name" for i, name in enumerate(names, 1) if not name.strip()]
    if not names:
        mistakes = ["it has no columns"]
    if mistakes or why:
        cut = "; ".join([*mistakes[:5], *(["…"] if len(mistakes) > 5 else [])])
        told = f"the header can't be used: {cut}. " if mistakes else ""
        raise PipelineStop(f"{file}: {told}{why or 'Name each column once, then run again.'}")


def _differences(header: list[str], names: list[str], where: str) -> Iterator[str]:
    """Yields how a header is another one than the names that are somewhere."""
    missing = [name for name in names if name not in header]
    others = [name for name in header if name not in names]
    for name in others[:5]:
        close = difflib.get_close_matches(name, missing, 1, 0.5)
        guess = f" (did you mean '{close[0]}'?)" if close else ""
        yield f"column {shown(name)} is not {where}{guess}"
    if len(others) > 5:
        yield f"and {len(others) - 5} more"
    if missing:
        yield f"missing: {', '.join(missing)}"
