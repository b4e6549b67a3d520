"""The one reader of tables: CSV, Parquet and JSON lines through DuckDB, a file or many.

    with rows.tables(files, form) as tables:                     # files: all that may be read
        kinds = tables.kinds(files, limit=1_000_000)             # {'fare': 'FLOAT', ...}, inferred
        reading = tables.read(file, Columns(kinds, filled={"id"}))
        for batch in reading: ...                                # Arrow batches of the good rows
        reading.bad, reading.bad_rows                            # a count, and the first few

What a value of a type is has its one answer here. INT: a whole number of 64 bits, `12` or `12.0`;
FLOAT: a finite number of 32 bits; BYTES: text. Where a column of a file has a type of its own, it
must fit: a date or a time becomes text. Missing are null, NaN, an empty text and, in columns of
numbers and in the label, the texts of `form.nulls`. A row with a value that is none of its column's
type, without a value that must be there, or with another number of fields than the header is bad.

The connection is locked: no network, no extension, no file but those named and its own temporary
ones. One thread: rows keep their order, and those who read many files do so side by side.
"""

import contextlib
import json
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import PipelineStop, did_you_mean
from components.ingest import plain
from components.ingest.plain import Source
from components.ingest.settings import CsvFormat, Kind

SHOWN, MOST_LISTED = 10, 250_000
"""So many bad rows of a file are kept if nothing else is said, and at most."""
ARROW: dict[str, pa.DataType] = {"INT": pa.int64(), "FLOAT": pa.float32(), "BYTES": pa.string()}
_VALUES = 1 << 18  # of all columns together, in a batch
_KINDS: tuple[Kind, ...] = ("INT", "FLOAT", "BYTES")  # from the narrowest to the widest
_SQL = {"INT": "BIGINT", "FLOAT": "FLOAT", "BYTES": "VARCHAR", None: "VARCHAR"}
_INTEGER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|BOOLEAN")
_NESTED = re.compile(r".*\]|(STRUCT|MAP|UNION|VARIANT|INTERVAL).*", re.DOTALL)
_TEXT = re.compile(r'VARCHAR|JSON|"NULL"|ENUM.*', re.DOTALL)

Wanted = Kind | None
"""What a column is read as; None: as it is in the file, text in CSV and JSON."""
_Numbers: TypeAlias = npt.NDArray[np.int64]
Fill: TypeAlias = Callable[[], list["Reading"]]
"""Puts rows of files into the tables of a query."""


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
    """The file's column, one of `kinds`, where it comes out under another name, too."""


class BadRow(NamedTuple):
    """A row that cannot be used."""

    file: str
    place: str
    """What `number` counts, from 1: "line"; or "row", after the header, if a row has many lines."""
    number: int
    problems: dict[str, str]
    """Each with the value, by the reason: that is equal for all rows that have it."""
    raw: str
    """The row as it stands in the file; of Parquet, an object of texts as JSON."""

    def __str__(self) -> str:
        """A line for each problem."""
        told = (f", {p}" if p.startswith("column '") else f": {p}" for p in self.problems.values())
        return "\n".join(f"  {self.place} {self.number}{p}" for p in told)

    def as_json(self) -> str:
        """A line of a list of bad rows."""
        record = {"file": self.file, self.place: self.number, "reasons": [*self.problems.values()]}
        return json.dumps(record | {"raw": self.raw}, ensure_ascii=False)


@contextlib.contextmanager
def tables(
    files: Iterable[str], form: CsvFormat | None = None, keep: int = SHOWN
) -> Iterator["Tables"]:
    """Yields the reader of some files; of each, it keeps the first `keep` bad rows.

    `form` says how those of CSV and JSON are written.
    """
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        connection = connect(files, folder)
        try:
            yield Tables(connection, form or CsvFormat(), keep, folder)
        finally:
            connection.close()


def connect(files: Iterable[str], folder: str) -> duckdb.DuckDBPyConnection:
    """A database in memory that can reach these files and one folder, and nothing else."""
    connection = duckdb.connect(config={"threads": 1, "memory_limit": "1GB"})
    allowed = [os.path.realpath(file) for file in files if "://" not in file]
    connection.execute("SET temp_directory = $1", [os.path.join(folder, "spilled")])
    connection.execute("SET allowed_directories = $1", [[folder]])
    connection.execute("SET allowed_paths = $1", [allowed])
    connection.execute(
        "SET python_enable_replacements = false; SET autoinstall_known_extensions = false;"
        "SET autoload_known_extensions = false; SET allow_community_extensions = false;"
        "SET TimeZone = 'UTC'; SET explain_output = 'all';"
        "SET enable_external_access = false; SET lock_configuration = true"
    )
    return connection


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL takes it."""
    return "'" + text.replace("'", "''") + "'"


class Tables:
    """Reads files; made by `tables`. What can't be read to its end stops with PipelineStop."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, form: CsvFormat, keep: int, folder: str
    ) -> None:
        self.connection, self.form, self.keep = connection, form, keep
        self._folder = folder
        self._sources: dict[str, Source] = {}
        self._scans = 0

    def columns(self, file: str) -> dict[str, str]:
        """The columns of a file in its order, and DuckDB's types; VARCHAR in CSV and JSON."""
        return dict(self._source(file).types)

    def kinds(self, files: Sequence[str], limit: int, exact: bool = True) -> dict[str, Kind]:
        """Infers what the columns of some files are from their first `limit` rows.

        A column of text is INT if all its values are whole numbers, FLOAT if all are numbers. What
        holds lists or records in Parquet is left out. If `exact`, all files must have the same
        columns.
        """
        found: dict[str, Kind] = {}
        for file in files:
            source = self._source(file)
            widths = [
                _width(source, i, self.form) if own == "VARCHAR" else literal(kind_of(own) or "")
                for i, own in enumerate(source.types.values())
            ]
            first = f"(SELECT * FROM {{}} LIMIT {limit})"
            [(rows, *own)] = self._all(source, f"SELECT count(*), {', '.join(widths)} FROM {first}")
            if not rows:  # or none that DuckDB could split
                reading = self.read(file, Columns(dict.fromkeys(source.types)))
                deque(reading, maxlen=0)
                reading.check()
            kinds = {name: kind for name, kind in zip(source.types, own, strict=True) if kind}
            if found and exact:
                advice = "All files must have the same; correct them, or narrow data.pattern"
                _check(source, Columns(dict.fromkeys(found)), self.form, files[0], advice)
            for name, kind in kinds.items():
                found[name] = max(found.get(name, kind), kind, key=_KINDS.index)
            limit -= rows
            if limit <= 0:
                break
        return found

    def read(self, file: str, columns: Columns, limit: int | None = None) -> "Reading":
        """Reads a file, or its first `limit` rows, once its columns fit."""
        source = self._source(file)
        advice = "make and review the schema anew" if columns.exact else "name other columns"
        _check(source, columns, self.form, "the schema", f"Correct the file, or {advice}")
        return Reading(self, source, columns, limit)

    def create(self, name: str, files: Sequence[str], columns: Columns) -> None:
        """Makes an empty table for the rows of some files."""
        types = []
        for column, kind in columns.kinds.items():
            own = {self._source(file).types.get(column) for file in files} - {None}
            type_ = own.pop() if kind is None and len(own) == 1 else _SQL[kind]
            types.append(f"{quoted(column)} {type_}")
        try:
            self.connection.execute(f"CREATE TABLE {quoted(name)} ({', '.join(types)})")
        except duckdb.CatalogException as error:
            raise PipelineStop(f"SQL takes two columns for one: {error}. Rename one.") from error

    def fill(
        self, name: str, files: Sequence[str], columns: Columns, limit: int | None = None
    ) -> list["Reading"]:
        """Puts the good rows of some files into a table, and returns what came of each file."""
        readings: list[Reading] = []
        for file in files:
            left = None if limit is None else limit - sum(reading.seen for reading in readings)
            if left is not None and left <= 0:
                break
            readings.append(reading := self.read(file, columns, left))
            for batch in reading.with_strings():
                self.connection.register("a batch", batch)
                self.connection.execute(f'INSERT INTO {quoted(name)} FROM "a batch"')
                self.connection.unregister("a batch")
        return readings

    def select(self, sql: str, types: dict[str, str], columns: Columns, fill: "Fill") -> "Reading":
        """Reads the result of a query, once it fits, over what `fill` puts into tables then."""
        result = f"(\n{sql.rstrip().rstrip(';')}\n)"
        source = Source("data.sql", "parquet", types=types, query=result)
        advice = "Correct the query (EXCLUDE, REPLACE, CAST), or make and review the schema anew"
        _check(source, columns, self.form, "the schema", advice)
        return Reading(self, source, columns, fill=fill)

    def scan(self, source: Source) -> tuple[str, str]:
        """What to select a file's rows from, and the name of the table of its rejects.

        Columns are r0, r1, ...; of JSON, `n`, `line` and `is_object` too.
        """
        path = literal(source.path)
        if source.kind == "json":
            return f"({_json_lines(path, [*source.types])})", ""
        if source.kind == "parquet":
            alias = f"AS t({', '.join(f'r{i}' for i in range(len(source.types)))})"
            return f"{source.query or f'read_parquet({path})'} {alias}", ""
        self._scans += 1
        rejects, quote = f"rejects_{self._scans}", literal(self.form.quote)
        names = ", ".join(f"'r{i}': 'VARCHAR'" for i in range(len(source.types)))
        ends = f"new_line = {source.line_end!r}, " if source.line_end else ""
        return (
            f"read_csv({path}, auto_detect = false, header = true, skip = {source.skipped}, {ends}"
            f"delim = {literal(self.form.separator)}, quote = {quote}, escape = {quote}, "
            f"columns = {{{names}}}, store_rejects = true, rejects_table = '{rejects}', "
            f"rejects_scan = '{rejects}_scan', rejects_limit = 0)",
            rejects,
        )

    def _all(
        self, source: Source, query: str, of: Callable[[Any], list[Any]] = lambda r: r.fetchall()
    ) -> list[Any]:
        """The rows, or something else, of a query over a file, which stands for `{}` in it."""
        try:
            return of(self.connection.sql(query.replace("{}", self.scan(source)[0], 1)))
        except (duckdb.Error, OSError) as error:
            raise plain.unreadable(source.file, error) from error

    def _source(self, file: str) -> Source:
        if file not in self._sources:
            path = os.path.join(self._folder, str(len(self._sources)))
            source = plain.open_source(file, self.form, path)
            if source.kind == "json":
                keys = "SELECT json_keys(line) FROM {} WHERE is_object GROUP BY 1 ORDER BY min(n)"
                found = dict.fromkeys(chain(*chain(*self._all(source, keys))), "VARCHAR")
                source = source._replace(types=found)
                plain.check_names(file, [*found])
            elif source.kind == "parquet":  # DuckDB renames 'A' beside 'a'.
                types = self._all(source, f"FROM read_parquet({literal(path)})", lambda r: r.types)
                names = pq.read_schema(path).names
                plain.check_names(file, names)
                source = source._replace(types=dict(zip(names, map(str, types), strict=True)))
            elif source.is_mixed:  # in rows, which DuckDB refuses, or in fields
                try:
                    self._all(source, "SELECT count(*) FROM {}")
                except PipelineStop:
                    source = plain.with_one_line_end(source)
            self._sources[file] = source
        return self._sources[file]


class Reading:
    """The good rows of a file, as Arrow batches in its order; what was bad when all is read.

    INT is int64, FLOAT float32 and BYTES binary.
    """

    def __init__(
        self,
        tables: Tables,
        source: Source,
        columns: Columns,
        limit: int | None = None,
        fill: "Fill" = list,
    ) -> None:
        self._tables, self._source, self._columns = tables, source, columns
        self._limit, self._fill, self._keep = limit, fill, tables.keep
        self._before = self._rows = self.bad = 0
        """Bad rows so far; at the end those with another number of fields are among them."""
        self.bad_rows: list[BadRow] = []
        """The first few; those of CSV have their lines when all is read."""
        self.numbers: _Numbers = np.arange(0)
        """Of the last batch's rows among all, from 1, without those that `unsplit` gives; of JSON,
        their lines."""

    @property
    def seen(self) -> int:
        """Rows of the files so far, good and bad."""
        return self._before if self._source.query else self._rows

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yields the good rows; a batch may have none, and there is one at least."""
        yield from map(with_bytes, self.with_strings())

    def with_strings(self) -> Iterator[pa.RecordBatch]:
        """Yields the same with BYTES as strings."""
        for reading in self._fill():
            self._before += reading.seen
            self.bad += reading.bad
            self.bad_rows += reading.bad_rows
        self._keep += len(self.bad_rows)
        scanned, rejects = self._tables.scan(self._source)
        if self._limit is not None:
            scanned = f"(SELECT * FROM {scanned} LIMIT {self._limit})"
        query = _checked(scanned, self._source, self._columns, self._tables.form)
        cursor, size = self._tables.connection.cursor(), _VALUES // len(self._columns.kinds)
        try:
            reader = cursor.sql(query).to_arrow_reader(max(1024, size))
            none = pa.RecordBatch.from_pylist([], reader.schema)
            for rows in chain(reader, [none]):
                yield self._good(rows)
                self._check_most()
            if rejects:
                self._finish(self._rejected(cursor, rejects))
                self._check_most()
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            if not self._source.query:
                raise plain.unreadable(self._source.file, error) from error
            why = str(error).split("\n")[0][:500]
            raise PipelineStop(
                f"data.sql can't be run: {why}. Correct the query, or use TRY_CAST."
            ) from error

    def check(self) -> None:
        """Stops at bad rows, and names the first ones; or if there are no rows at all."""
        if self.bad:
            first = self.bad_rows[:SHOWN]
            more = [f"  and {self.bad - len(first):,} more"] if self.bad > len(first) else []
            listed = "\n".join([*map(str, first), *more])
            raise PipelineStop(
                f"{first[0].file}: bad rows:\n{listed}\nCorrect or remove them in the file, or "
                "correct the column's type in the schema, then run again."
            )
        if not self.seen:
            file = self._source.file
            raise PipelineStop(f"{file} has a header, but no rows. Fill the file or move it away.")

    def _check_most(self) -> None:
        if self.bad > self._keep >= MOST_LISTED:
            self.check()

    def unsplit(self) -> list[int]:
        """Rows of CSV, from 1 after the header, without the header's number of fields or UTF-8."""
        scanned, rejects = self._tables.scan(self._source)
        if not rejects:
            return []
        cursor = self._tables.connection.cursor()
        cursor.sql(f"SELECT count(COLUMNS(*)) FROM {scanned}").fetchall()
        return [*self._rejected(cursor, rejects)]

    def _good(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        names = [*self._columns.kinds]
        batch = pa.RecordBatch.from_arrays(rows.columns[: len(names)], names)
        start = self._rows + 1
        self._rows += len(rows)
        is_json = self._source.kind == "json"
        self.numbers = rows["n"].to_numpy() if is_json else np.arange(start, self._rows + 1)
        if rows["wrong"].null_count == len(rows):
            return batch
        is_bad = rows["wrong"].is_valid().to_numpy(zero_copy_only=False)
        self.bad += int(is_bad.sum())
        for index in np.flatnonzero(is_bad)[: max(0, self._keep - len(self.bad_rows))].tolist():
            wrong, raw = (rows[name][index].as_py() for name in ("wrong", "raw"))
            self.bad_rows.append(self._bad_row(int(self.numbers[index]), wrong, raw))
        self.numbers = self.numbers[~is_bad]
        return batch.filter(pa.array(~is_bad))

    def _bad_row(self, number: int, wrong: list[str | None], raw: list[str | None]) -> BadRow:
        """A row from what is wrong with each column, and the texts in the file."""
        source, columns, form = self._source, self._columns, self._tables.form
        values = dict(zip([*source.types, ""], raw, strict=False))
        if source.kind == "csv":
            mark = f"[{re.escape(form.separator + form.quote)}\r\n]"
            row = form.separator.join(
                form.quote + value.replace(form.quote, form.quote * 2) + form.quote
                if form.quote and re.search(mark, value)
                else value
                for value in (value or "" for value in raw)
            )
        else:
            row = str(raw[-1]) if source.kind == "json" else json.dumps(values, ensure_ascii=False)
        problems: dict[str, str] = {}
        for column, what in zip([*columns.kinds, ""], wrong, strict=False):
            if what:
                name = columns.of.get(column, column)
                problems |= _problem(name, values[name], what)
        place = "line" if source.kind == "json" else "row"
        return BadRow(source.file, place, number, problems, row)

    def _finish(self, rejected: dict[int, BadRow]) -> None:
        """Adds the rows of CSV that are none, and gives all their lines."""
        source, kept = self._source, self.bad_rows
        self._rows += len(rejected)
        self.bad += len(rejected)
        is_line = self._limit is None and source.lines == self._rows + source.skipped + 1
        place, head = ("line", source.skipped + 1) if is_line else ("row", 0)
        numbers = among_all(np.array([row.number for row in kept], np.int64), [*rejected])
        kept = [row._replace(number=n) for row, n in zip(kept, numbers.tolist(), strict=True)]
        kept = sorted([*kept, *rejected.values()], key=lambda row: row.number)[: self._keep]
        self.bad_rows = [row._replace(place=place, number=row.number + head) for row in kept]

    def _rejected(self, cursor: Any, rejects: str) -> dict[int, BadRow]:
        """The rows that DuckDB could not split, by record after the header."""
        rejected = cursor.sql(
            "SELECT line, any_value(error_type::VARCHAR), any_value(csv_line), "
            f"any_value(error_message), any_value(column_idx) FROM {rejects} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        source, names = self._source, [*self._source.types]
        found: dict[int, BadRow] = {}
        for line, kind, raw, message, column in rejected:
            record, text = line - 1 - source.skipped, raw.rstrip("\r\n")
            is_last = record == self._rows + len(rejected)
            is_open = "\n" in text or (is_last and text.count(self._tables.form.quote) % 2)
            if kind == "LINE SIZE OVER MAXIMUM" or (kind == "UNQUOTED VALUE" and is_open):
                raise PipelineStop(
                    f"{source.file}: a quotation mark in row {record} is not closed, or the row is "
                    f"longer than 2 MB: {_shown(text)}. Correct the file, then run again."
                )
            if kind == "INVALID ENCODING":
                problems = _problem(names[(column or 1) - 1], text, "is not UTF-8")
            elif kind == "UNQUOTED VALUE":
                problems = _problem("", text, "has text beside quotation marks")
            else:
                count = (re.findall(r"Found: (\d+)", message) or ["other"])[0]
                told = f"{count} fields, the header has {len(names)}"
                problems = {"another number of fields than the header": told}
            found[record] = BadRow(source.file, "row", record, problems, text)
        return found


def among_all(numbers: _Numbers, unsplit: Sequence[int]) -> _Numbers:
    """Numbers of rows of CSV that count the split ones alone, as numbers among all rows."""
    before = np.array(unsplit, np.int64) - np.arange(len(unsplit))
    return numbers + np.searchsorted(before, numbers, side="right")


def with_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its strings as bytes, as examples have them."""
    columns = [c.cast(pa.binary()) if c.type == pa.string() else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def kind_of(own: str) -> Kind | None:
    """The kind of a type of DuckDB's; None for what no column of a table of examples can have."""
    if _NESTED.fullmatch(own):
        return None
    if _INTEGER.fullmatch(own):
        return "INT"
    return "FLOAT" if own in ("FLOAT", "DOUBLE") or own.startswith("DECIMAL") else "BYTES"


def fits(own: str, kind: Wanted) -> bool:
    """Whether a column of a type can be read as a kind; a text may be a number."""
    found = {kind_of(own), kind}
    return len(found) == 1 or found == {"INT", "FLOAT"} or kind is None or _is_text(own)


def number(kind: str, text: str, form: CsvFormat) -> str:
    """SQL for the number that a text is; a cast alone would take 2.5 for 3, and 1_000."""
    clean = text
    for other in filter(None, [*form.units, form.thousands]):
        clean = f"replace({clean}, {literal(other)}, '')"
    if form.decimal != ".":
        clean = f"replace({clean}, {literal(form.decimal)}, '.')"
    is_number = _is_written(kind, text, form)
    if named := [word for word in form.nulls if re.fullmatch(pattern("FLOAT", form), word)]:
        is_number += f" AND trim({text}) NOT IN ({_listed(named)})"
    return f"CASE WHEN {is_number} THEN TRY_CAST({clean} AS {_SQL[kind]}) END"


def _is_written(kind: str, text: str, form: CsvFormat) -> str:
    """SQL for whether a text is written as a number is."""
    return f"regexp_full_match({text}, {literal(pattern(kind, form))})"


def pattern(kind: str, form: CsvFormat) -> str:
    """How a number is written, as a regular expression; WHOLE: an INT without a decimal point."""
    digits, point = "[0-9]+", re.escape(form.decimal)
    if form.thousands:
        digits = f"([0-9]{{1,3}}({re.escape(form.thousands)}[0-9]{{3}})+|[0-9]+)"
    numbers = {
        "WHOLE": digits,
        "INT": f"{digits}({point}0*)?",
        "FLOAT": f"({digits}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?",
    }
    unit = f"(({'|'.join(map(re.escape, form.units))})[ \t]*)?" if form.units else ""
    return f"[ \t]*{unit}[+-]?{unit}{numbers[kind]}[ \t]*{unit}"


def _width(source: Source, index: int, form: CsvFormat) -> str:
    """SQL for the kind of a column of texts, by its widest value; text if all stand for none."""
    text, is_text = f"r{index}", "false"
    if source.kind == "json":  # "12" in quotation marks is a text there.
        is_text = f"json_type(line, {_pointer([*source.types][index])}) = 'VARCHAR'"
    return (
        f"['BYTES', 'INT', 'FLOAT', 'BYTES'][1 + coalesce(max(CASE WHEN nullif({text}, '') IS NULL "
        f"THEN NULL WHEN trim({text}) IN ({_listed(form.nulls)}) THEN 0 WHEN {is_text} THEN 3 "
        f"WHEN {_is_written('WHOLE', text, form)} AND {number('INT', text, form)} IS NOT NULL "
        f"THEN 1 WHEN isfinite({number('FLOAT', text, form)}) THEN 2 ELSE 3 END), 1)]"
    )


def _checked(scanned: str, source: Source, columns: Columns, form: CsvFormat) -> str:
    """SQL for c0, c1, ...: the values; and of bad rows the texts `wrong` and `raw`.

    `wrong` has what is wrong with each column, or null; `raw` what the file has. Of JSON, both have
    one more, of the line.
    """
    values, reasons, names = [], [], [*source.types]
    for i, (column, kind) in enumerate(columns.kinds.items()):
        name = columns.of.get(column, column)
        if name not in source.types:
            values.append(f"NULL::{_SQL[kind]}")
            reasons.append("NULL::VARCHAR")
            continue
        own, raw, is_label = source.types[name], f"r{names.index(name)}", name == columns.label
        values.append(_value(kind, own, raw, form, is_label))
        reasons.append(_reason(kind, own, raw, f"c{i}", form, is_label, column in columns.filled))
    out, raws = [f"c{i}" for i in range(len(values))], [f"r{i}::VARCHAR" for i in range(len(names))]
    if source.kind == "json":
        reasons = [f"CASE WHEN is_object THEN {reason} END" for reason in reasons]
        reasons.append("CASE WHEN NOT is_object THEN 'is no JSON object' END")
        out, raws = [*out, "n"], [*raws, "line"]
    wrong = ", ".join(f"w{i}" for i in range(len(reasons)))
    is_bad = f"CASE WHEN coalesce({wrong}) IS NOT NULL THEN"
    return (
        f"SELECT {', '.join(out)}, {is_bad} [{wrong}] END AS wrong, "
        f"{is_bad} [{', '.join(raws)}] END AS raw FROM (SELECT *, {_named('w', reasons)} "
        f"FROM (SELECT *, {_named('c', values)} FROM {scanned}))"
    )


def _named(letter: str, expressions: Sequence[str]) -> str:
    return ", ".join(f"{sql} AS {letter}{i}" for i, sql in enumerate(expressions))


def _value(kind: Wanted, own: str, raw: str, form: CsvFormat, is_label: bool) -> str:
    """SQL for a value as BIGINT, FLOAT or VARCHAR; null where it is missing or none."""
    if own in ("FLOAT", "DOUBLE"):
        raw = f"nullif({raw}, 'nan'::{own})"
    if kind in ("INT", "FLOAT"):
        if _is_text(own):
            return number(kind, f"{raw}::VARCHAR", form)
        if kind == "INT" and kind_of(own) == "FLOAT":  # A cast alone would round.
            raw = f"CASE WHEN {raw} = trunc({raw}) THEN {raw} END"
        exact = "::VARCHAR" if own.startswith("DECIMAL") else ""
        return f"TRY_CAST({raw}{exact} AS {_SQL[kind]})"
    if kind is None and not _is_text(own) and own != "BLOB":
        return raw
    text = _text(own, raw)
    if is_label and form.nulls:
        text = f"CASE WHEN trim({text}) NOT IN ({_listed(form.nulls)}) THEN {text} END"
    return f"nullif({text}, '')"


def _text(own: str, raw: str) -> str:
    """SQL for a value as text; a moment as pandas prints it, in UTC if it has a zone.

    Bytes that are no text, as a picture's, are in base64, as `kind: image` reads them.
    """
    if own == "BLOB":
        return f"coalesce(TRY(decode({raw})), base64({raw}))"
    if not own.startswith("TIME"):
        return raw if own == "VARCHAR" else f"{raw}::VARCHAR"
    zone = ""
    if own == "TIMESTAMP WITH TIME ZONE":
        raw, zone = f"timezone('UTC', {raw})", " || '+00:00'"
    elif own == "TIME WITH TIME ZONE":
        raw = f"{raw}::TIME"
    text = f"{raw}::VARCHAR"  # without the zeros at its end
    padded = rf"regexp_replace({text} || '00000', '(\.\d{{6}}|\.\d{{9}})0*$', '\1')"
    return f"(CASE WHEN contains({text}, '.') THEN {padded} ELSE {text} END{zone})"


def _reason(
    kind: Wanted, own: str, raw: str, value: str, form: CsvFormat, is_label: bool, is_filled: bool
) -> str:
    """SQL for what is wrong with a value, from what the file has; null if nothing is."""
    text, is_good, none = f"{raw}::VARCHAR", f"{value} IS NOT NULL", f"'is not {form.encoding}'"
    nulls = ["", *(form.nulls if is_label or kind in ("INT", "FLOAT") else [])]
    nulls += ["nan"] if own in ("FLOAT", "DOUBLE") else []
    if kind in ("INT", "FLOAT"):
        what, is_large = "a whole number", _is_written("INT", text, form)
        if kind == "FLOAT":
            is_good, what = f"isfinite({value})", "a number"
            is_large = _is_written("FLOAT", text, form) if _is_text(own) else "true"
        bits = {"INT": 64, "FLOAT": 32}[kind]
        large = f"'is too large for {bits} bits ({kind})'"
        none = f"CASE WHEN {is_large} THEN {large} ELSE 'is not {what} ({kind})' END"
    elif _is_text(own) and not form.is_utf8:
        is_good += f" AND NOT contains({text}, '{plain.OTHER}')"
    empty = f"CASE WHEN {text} <> '' THEN 'counts as' ELSE 'is' END || ' empty, but must be filled'"
    return (
        f"CASE WHEN {is_good} THEN NULL WHEN {text} IS NULL OR trim({text}) IN "
        f"({_listed(nulls)}) THEN {empty if is_filled else 'NULL'} ELSE {none} END"
    )


def _problem(column: str, value: str | None, what: str) -> dict[str, str]:
    """What is wrong with a column, or with a row (""), with the value, by the same without it."""
    told = f"{_shown(value)} {what}" if value else what
    return {f"column '{column}' {what}": f"column '{column}': {told}"} if column else {what: told}


def _shown(value: str) -> str:
    """A value, not longer than a line takes."""
    return repr(value if len(value) <= 40 else value[:40] + "…")


def _is_text(own: str) -> bool:
    return _TEXT.fullmatch(own) is not None


def _json_lines(path: str, keys: list[str]) -> str:
    """SQL for the lines of a file: `n` counts them, r0, r1, ... are the texts at the keys.

    Read as CSV of one column: a separator and a quotation mark that JSON cannot have.
    """
    texts = "".join(f", texts[{i + 1}] AS r{i}" for i in range(len(keys)))
    pointers = ", ".join(map(_pointer, keys))
    extracted = f"CASE WHEN is_object THEN json_extract_string(line, [{pointers}]) END"
    return (
        f"SELECT n, line, is_object{texts} FROM (SELECT *, {extracted if keys else 'NULL'} AS texts"
        " FROM (SELECT *, coalesce(CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' END, "
        "false) AS is_object FROM (SELECT *, row_number() OVER () AS n FROM "
        f"read_csv({path}, auto_detect = false, header = false, delim = '\x1f', quote = '', "
        "escape = '', columns = {'line': 'VARCHAR'}, max_line_size = 16000000))"
        "WHERE trim(line) <> ''))"
    )


def _pointer(key: str) -> str:
    return literal("/" + key.replace("~", "~0").replace("/", "~1"))


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(map(literal, texts)) or "NULL"


def _check(source: Source, columns: Columns, form: CsvFormat, wanted: str, advice: str) -> None:
    """Compares the columns that are there with those of what is wanted."""
    kinds = {name: kind for name, kind in columns.kinds.items() if name not in columns.of}
    own = {n: t for n, t in source.types.items() if n in kinds or not _NESTED.fullmatch(t)}
    others = [name for name in own if columns.exact and name not in kinds]
    missing = [n for n in kinds if n not in own and n not in columns.optional]
    mistakes = [
        f"column {_shown(name)} is not in {wanted}{did_you_mean(name, missing, 0.5)}"
        for name in others[:5]
    ]
    mistakes += [f"and {len(others) - 5} more"] if len(others) > 5 else []
    mistakes += [f"missing: {', '.join(missing)}"] if missing else []
    why = plain.hint([*own], form) if mistakes and source.kind == "csv" else ""
    mistakes += [
        f"column '{name}' is {own[name][:40]}, and {kind} in {wanted}"
        for name, kind in kinds.items()
        if name in own and not fits(own[name], kind)
    ]
    if mistakes:
        told = "; ".join(mistakes)
        raise PipelineStop(f"{source.file}: the columns do not fit: {told}. {why or advice + '.'}")
