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
from collections import Counter
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
from components.ingest.settings import CsvFormat, Kind

SHOWN, MOST_LISTED = 10, 250_000
"""So many bad rows of a file are kept if nothing else is said, and at most."""
ARROW: dict[str, pa.DataType] = {"INT": pa.int64(), "FLOAT": pa.float32(), "BYTES": pa.string()}
_VALUES = 1 << 18  # of all columns together, in a batch
_KINDS: tuple[Kind, ...] = ("INT", "FLOAT", "BYTES")  # from the narrowest to the widest
_SQL = {"INT": "BIGINT", "FLOAT": "FLOAT", "BYTES": "VARCHAR", None: "VARCHAR"}
_INTEGER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|BOOLEAN")
_BESIDE, _FIELDS = "has text beside quotation marks", "another number of fields than the header"
_NESTED = re.compile(r".*\]|(STRUCT|MAP|UNION|VARIANT|INTERVAL).*", re.DOTALL)
_TEXT = re.compile(r'VARCHAR|JSON|"NULL"|ENUM.*', re.DOTALL)

Wanted = Kind | None
"""What a column is read as; None: as it is in the file, text in CSV and JSON."""
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


class BadRow(NamedTuple):
    """A row that cannot be used."""

    file: str
    place: str
    """What `number` counts, from 1: "line"; or "row", after the header, if a row has many lines."""
    number: int
    problems: list[str]
    """Each with the value, and the column before a colon."""
    reasons: list[str]
    """The same without the value: equal for all rows that have it."""
    raw: str
    """The row as it stands in the file; of Parquet, an object of texts as JSON."""

    def __str__(self) -> str:
        """A line for each problem."""
        told = (f", {p}" if p.startswith("column '") else f": {p}" for p in self.problems)
        return "\n".join(f"  {self.place} {self.number}{p}" for p in told)

    def as_json(self) -> str:
        """A line of a list of bad rows."""
        record = {"file": self.file, self.place: self.number, "reasons": self.problems}
        return json.dumps(record | {"raw": self.raw}, ensure_ascii=False)


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
    """Yields the reader of some files; `form` says how those of CSV and JSON are written."""
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        reader = Tables([*files], form or CsvFormat(), folder)
        try:
            yield reader
        finally:
            reader.connection.close()


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

    def __init__(self, files: list[str], form: CsvFormat, folder: str) -> None:
        self.connection = connect(files, folder)
        self.form = form
        self._folder = folder
        self._sources: dict[str, _Source] = {}
        self._scans = 0

    def columns(self, file: str) -> dict[str, str]:
        """The columns of a file in its order, and DuckDB's types; VARCHAR in CSV and JSON."""
        return dict(self._source(file).types)

    def kinds(self, files: Sequence[str], limit: int) -> dict[str, Kind]:
        """Infers what the columns of some files are from their first `limit` rows.

        A column of text is INT if all its values are whole numbers, FLOAT if all are numbers. What
        holds lists or records in Parquet is left out. All files must have the same columns.
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
            if not rows:
                reading = self.read(file, Columns(dict.fromkeys(source.types)))
                for _ in reading:
                    pass
                reading.check()
            kinds = {name: kind for name, kind in zip(source.types, own, strict=True) if kind}
            found = found or kinds
            if mistakes := [*_differences([*kinds], [*found], f"in {files[0]}")]:
                raise PipelineStop(
                    f"{file} has other columns than {files[0]}: {'; '.join(mistakes)}. All files "
                    "must have the same; correct them, or narrow data.pattern."
                )
            found = {n: max(kind, kinds[n], key=_KINDS.index) for n, kind in found.items()}
            limit -= rows
            if limit <= 0:
                break
        return found

    def read(
        self, file: str, columns: Columns, keep: int = SHOWN, limit: int | None = None
    ) -> "Reading":
        """Reads a file, or its first `limit` rows, once its columns fit; keeps some bad rows."""
        source = self._source(file)
        self._check(source, columns)
        return Reading(self, source, columns, keep, limit)

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
        self,
        name: str,
        files: Sequence[str],
        columns: Columns,
        keep: int = SHOWN,
        limit: int | None = None,
    ) -> list["Reading"]:
        """Puts the good rows of some files into a table, and returns what came of each file."""
        readings: list[Reading] = []
        for file in files:
            left = None if limit is None else limit - sum(reading.seen for reading in readings)
            if left is not None and left <= 0:
                break
            readings.append(reading := self.read(file, columns, keep, left))
            for batch in reading:
                self.connection.register("a batch", recast(batch, pa.string()))
                self.connection.execute(f'INSERT INTO {quoted(name)} FROM "a batch"')
                self.connection.unregister("a batch")
        return readings

    def select(
        self, sql: str, types: dict[str, str], columns: Columns, keep: int, before: list["Reading"]
    ) -> "Reading":
        """Reads the result of a query over rows that came of other readings."""
        result = f"(\n{sql.rstrip().rstrip(';')}\n)"
        source = _Source("the result of data.sql", plain.Plain("parquet"), types, result)
        return Reading(self, source, columns, keep, None, before)

    def scan(self, source: _Source) -> tuple[str, str]:
        """What to select a file's rows from, and the name of the table of its rejects."""
        self._scans += 1
        path, rejects = literal(source.plain.path), f"rejects_{self._scans}"
        if source.plain.kind == "json":
            return f"({_json_lines(path, [*source.types])})", ""
        if source.plain.kind == "parquet":
            alias = f"AS t({', '.join(f'r{i}' for i in range(len(source.types)))})"
            return f"{source.query or f'read_parquet({path})'} {alias}", ""
        quote = literal(self.form.quote)
        names = ", ".join(f"'r{i}': 'VARCHAR'" for i in range(len(source.types)))
        return (
            f"read_csv({path}, auto_detect = false, header = true, skip = {source.plain.skipped}, "
            f"delim = {literal(self.form.separator)}, quote = {quote}, escape = {quote}, "
            f"columns = {{{names}}}, store_rejects = true, rejects_table = '{rejects}', "
            f"rejects_scan = '{rejects}_scan', rejects_limit = 0)",
            rejects,
        )

    def _all(
        self, source: _Source, query: str, of: Callable[[Any], list[Any]] = lambda r: r.fetchall()
    ) -> list[Any]:
        """The rows, or something else, of a query over a file, which stands for `{}` in it."""
        try:
            return of(self.connection.sql(query.replace("{}", self.scan(source)[0], 1)))
        except (duckdb.Error, OSError) as error:
            raise plain.unreadable(source.file, error) from error

    def _source(self, file: str) -> _Source:
        if file not in self._sources:
            link = os.path.join(self._folder, str(len(self._sources)))
            opened = plain.make_plain(file, self.form, link)
            source = _Source(file, opened, dict.fromkeys(opened.header, "VARCHAR"))
            found = [(name, "VARCHAR") for name in opened.header]
            if opened.kind == "json":
                keys = (
                    "SELECT json_keys(line), min(n) FROM {} WHERE is_object GROUP BY 1 ORDER BY 2"
                )
                names = dict.fromkeys(key for row in self._all(source, keys) for key in row[0])
                found = [(name, "VARCHAR") for name in names]
            elif opened.kind == "parquet":  # DuckDB renames 'A' beside 'a'.
                types = self._all(source, f"FROM read_parquet({literal(link)})", lambda r: r.types)
                names = pq.read_schema(link).names
                found = [(name, str(own)) for name, own in zip(names, types, strict=True)]
            _check_names(file, [name for name, _ in found], plain.hint(opened.header, self.form))
            source = source._replace(types=dict(found))
            if opened.is_mixed and not self._is_read(source):
                source = source._replace(plain=plain.with_one_line_end(opened))
            self._sources[file] = source
        return self._sources[file]

    def _is_read(self, source: _Source) -> bool:
        """Whether DuckDB reads a file in which lines and fields have different line ends.

        It refuses lines that end in two ways, and takes the first line end, which may stand in a
        column's name, for that of all lines: then it finds no rows, without a word.
        """
        if {"\n", "\r"} & {*"".join(source.types)}:
            return False
        with contextlib.suppress(PipelineStop):
            return bool(self._all(source, "SELECT count(*) FROM {}"))
        return False

    def _check(self, source: _Source, columns: Columns) -> None:
        """Compares a file's columns with those that are wanted."""
        kinds = {name: kind for name, kind in columns.kinds.items() if name not in columns.of}
        own = {n: t for n, t in source.types.items() if n in kinds or not _NESTED.fullmatch(t)}
        wanted = [name for name in kinds if name in own or name not in columns.optional]
        there = [name for name in own if columns.exact or name in kinds]
        mistakes = [*_differences(there, wanted, "in the schema")]
        why = plain.hint([*source.plain.header], self.form) if mistakes else ""
        mistakes += [
            f"column '{name}' is {own[name][:40]} in the file and {kind} in the schema"
            for name, kind in kinds.items()
            if name in own and not fits(own[name], kind)
        ]
        mistakes += [f"missing: {n}" for n in {*columns.of.values()} - {*kinds, *source.types}]
        if mistakes:
            advice = "make and review the schema anew" if columns.exact else "name other columns"
            raise PipelineStop(
                f"{source.file}: the columns do not fit: {'; '.join(mistakes)}. "
                + (why or f"Correct the file, or {advice}.")
            )


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
        before: Sequence["Reading"] = (),
    ) -> None:
        self._tables, self._source, self._columns, self._limit = tables, source, columns, limit
        self._before, self._rows = sum(reading.seen for reading in before), 0
        self.bad: int = sum(reading.bad for reading in before)
        """Bad rows so far; at the end those with another number of fields are among them."""
        self.bad_rows: list[BadRow] = [row for reading in before for row in reading.bad_rows]
        """The first few; those of CSV have their lines when all is read."""
        self._keep = keep + len(self.bad_rows)
        self.numbers: _Numbers = np.arange(0)
        """Of the last batch's rows among all, from 1, without those that `unsplit` gives; of JSON,
        their lines."""

    @property
    def seen(self) -> int:
        """Rows of the files so far, good and bad."""
        return self._before if self._source.query else self._rows

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yields the good rows; a batch may have none, and there is one at least."""
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
            if rejects:
                self._finish(self._rejected(cursor, rejects))
            if self.bad > self._keep >= MOST_LISTED:
                self.check()
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

    def unsplit(self) -> list[int]:
        """Rows of CSV, from 1 after the header, without the header's number of fields or UTF-8."""
        scanned, rejects = self._tables.scan(self._source)
        cursor = self._tables.connection.cursor()
        if rejects:
            cursor.sql(f"SELECT count(COLUMNS(*)) FROM {scanned}").fetchall()
        return [*self._rejected(cursor, rejects)] if rejects else []

    def _good(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        names, is_json = [*self._columns.kinds], self._source.plain.kind == "json"
        columns = [rows[f"c{i}"] for i in range(len(names))]
        batch = recast(pa.RecordBatch.from_arrays(columns, names), pa.binary())
        numbers: _Numbers = np.arange(self._rows, self._rows + len(rows)) + 1
        self.numbers = rows["n"].to_numpy() if is_json else numbers
        self._rows += len(rows)
        if rows["wrong"].null_count == len(rows):
            return batch
        is_bad = rows["wrong"].is_valid().to_numpy(zero_copy_only=False)
        self.bad += int(is_bad.sum())
        for index in np.flatnonzero(is_bad)[: max(0, self._keep - len(self.bad_rows))].tolist():
            wrong, raw = (rows[name][index].as_py() for name in ("wrong", "raw"))
            self.bad_rows.append(self._bad_row(int(self.numbers[index]), wrong, raw))
        self.numbers = self.numbers[~is_bad]
        return batch.filter(pa.array(~is_bad))

    def _bad_row(self, number: int, wrong: list[bool], raw: list[str | None]) -> BadRow:
        file, own, types, _ = self._source
        form, columns, values = (
            self._tables.form,
            self._columns,
            dict(zip(types, raw, strict=False)),
        )
        place, text = "row", json.dumps(values, ensure_ascii=False)
        if own.kind == "json":
            place, text = "line", str(raw[-1])
            if wrong[-1]:
                what = "is no JSON object"
                return BadRow(file, place, number, [f"{shown(text)} {what}"], [what], text)
        elif own.kind == "csv":
            marks, quote = {form.separator, form.quote, "\n", "\r"}, form.quote
            fields = [value or "" for value in raw]
            if quote:
                quoting = [f"{quote}{f.replace(quote, quote * 2)}{quote}" for f in fields]
                fields = [q if marks & {*f} else f for f, q in zip(fields, quoting, strict=True)]
            text = form.separator.join(fields)
        problems, reasons = [], []
        for name, is_wrong in zip(columns.kinds, wrong, strict=False):
            if is_wrong and name not in columns.of:
                what = _why(columns, name, types[name], values[name], form)
                value = f"{shown(values[name])} " if values[name] else ""
                problems.append(f"column '{name}': {value}{what}")
                reasons.append(f"column '{name}' {what}")
        return BadRow(file, place, number, problems, reasons, text)

    def _finish(self, rejected: dict[int, BadRow]) -> None:
        """Adds the rows of CSV that are none, and gives all their lines."""
        own, kept = self._source.plain, self.bad_rows
        self._rows += len(rejected)
        self.bad += len(rejected)
        is_line = self._limit is None and own.lines == self._rows + own.skipped + 1
        place, head = ("line", own.skipped + 1) if is_line else ("row", 0)
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
        file, own, types, _ = self._source
        found: dict[int, BadRow] = {}
        for line, kind, raw, message, column in rejected:
            record, text = line - 1 - own.skipped, raw.rstrip("\r\n")
            is_last = record == self._rows + len(rejected)
            is_open = "\n" in text or (is_last and text.count(self._tables.form.quote) % 2)
            if kind == "LINE SIZE OVER MAXIMUM" or (kind == "UNQUOTED VALUE" and is_open):
                raise PipelineStop(
                    f"{file}: a quotation mark in row {record} is not closed, or the row is longer "
                    f"than 2 MB: {shown(text)}. Correct the file, then run again."
                )
            if kind == "INVALID ENCODING":
                name = f"column '{[*types][(column or 1) - 1]}'"
                problem, reason = f"{name}: {shown(text)} is not UTF-8", f"{name} is not UTF-8"
            elif kind == "UNQUOTED VALUE":
                problem, reason = f"{shown(text)} {_BESIDE}", _BESIDE
            else:
                count = (re.findall(r"Found: (\d+)", message) or ["other"])[0]
                problem, reason = f"{count} fields, the header has {len(types)}", _FIELDS
            found[record] = BadRow(file, "row", record, [problem], [reason], text)
        return found


def among_all(numbers: _Numbers, unsplit: Sequence[int]) -> _Numbers:
    """Numbers of rows of CSV that count the split ones alone, as numbers among all rows."""
    before = np.array(unsplit, np.int64) - np.arange(len(unsplit))
    return numbers + np.searchsorted(before, numbers, side="right")


def shown(value: str | None) -> str:
    """A value, not longer than a line takes."""
    text = value or ""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def recast(batch: pa.RecordBatch, kind: pa.DataType) -> pa.RecordBatch:
    """The batch with its texts as strings or as bytes."""
    texts = (pa.string(), pa.binary())
    columns = [c.cast(kind) if c.type in texts else c for c in batch.columns]
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


def _is_text(own: str) -> bool:
    return _TEXT.fullmatch(own) is not None


def _value(kind: Wanted, own: str, raw: str, form: CsvFormat, is_label: bool) -> str:
    """SQL for a value as BIGINT, FLOAT or VARCHAR; null where it is missing or none."""
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
    """SQL for a value as text; a moment as pandas prints it, in UTC if it has a zone."""
    if own == "BLOB":
        return f"TRY(decode({raw}))"
    if not own.startswith("TIME"):
        return raw if own == "VARCHAR" else f"{raw}::VARCHAR"
    zone = ""
    if own == "TIMESTAMP WITH TIME ZONE":
        raw, zone = f"timezone('UTC', {raw})", " || '+00:00'"
    elif own == "TIME WITH TIME ZONE":
        raw = f"{raw}::TIME"
    text, digits = f"{raw}::VARCHAR", 9 if own in ("TIMESTAMP_NS", "TIME_NS") else 6
    padded = f"rpad({text}, (strpos({text}, '.') + {digits})::INT, '0')"
    if digits == 9:
        padded = rf"regexp_replace({padded}, '(\.\d{{6}})000$', '\1')"
    return f"(CASE WHEN contains({text}, '.') THEN {padded} ELSE {text} END{zone})"


def _checked(scanned: str, source: _Source, columns: Columns, form: CsvFormat) -> str:
    """SQL for c0, c1, ...: the values; and of bad rows `wrong`, which columns are, and `raw`.

    The last of `wrong` says, in JSON, whether the row is no object.
    """
    is_json, names = source.plain.kind == "json", [*source.types]
    values, tests = [], []
    for i, (column, kind) in enumerate(columns.kinds.items()):
        name = columns.of.get(column, column)
        if name not in source.types:
            values.append(f"NULL::{_SQL[kind]} AS c{i}")
            tests.append("false")
            continue
        own, raw = source.types[name], f"r{names.index(name)}"
        if own in ("FLOAT", "DOUBLE"):
            raw = f"nullif({raw}, 'nan'::{own})"
        values.append(f"{_value(kind, own, raw, form, name == columns.label)} AS c{i}")
        test = _wrong(kind, own, raw, f"c{i}", form)
        tests.append(f"({test} OR c{i} IS NULL)" if column in columns.filled else test)
    raws = [f"r{i}::VARCHAR" for i in range(len(names))]
    if is_json:
        tests, raws = [*tests, "NOT is_object"], [*raws, "line"]
    out = ", ".join(f"c{i}" for i in range(len(columns.kinds)))
    return (
        f"SELECT {out}, CASE WHEN bad THEN [{', '.join(tests)}] END AS wrong, "
        f"CASE WHEN bad THEN [{', '.join(raws)}] END AS raw{', n' if is_json else ''} "
        f"FROM (SELECT *, ({' OR '.join(tests)}) AS bad FROM "
        f"(SELECT *, {', '.join(values)} FROM {scanned}))"
    )


def _wrong(kind: Wanted, own: str, raw: str, value: str, form: CsvFormat) -> str:
    """SQL for whether a value that is there is none of its kind."""
    is_none = f"({value} IS NULL AND {raw} IS NOT NULL)"
    if kind in ("INT", "FLOAT"):
        if _is_text(own):  # CASE: the texts of few rows are looked at.
            gaps = _listed(["", *form.nulls])
            is_none = f"(CASE WHEN {is_none} THEN trim({raw}::VARCHAR) NOT IN ({gaps}) END IS TRUE)"
        return is_none if kind == "INT" else f"({is_none} OR isinf({value}) IS TRUE)"
    if own == "BLOB":
        return f"({is_none} AND octet_length({raw}) > 0)"
    is_copied = _is_text(own) and not form.is_utf8
    return f"(contains({raw}, '{plain.OTHER}') IS TRUE)" if is_copied else "false"


def _why(columns: Columns, name: str, own: str, raw: str | None, form: CsvFormat) -> str:
    """What is wrong with a value."""
    kind, is_text = columns.kinds[name], _is_text(own)
    nulls = form.nulls if kind in ("INT", "FLOAT") or name == columns.label else []
    if (raw or "").strip() in ("", *nulls) or (raw == "nan" and not is_text):
        return f"{'counts as' if raw else 'is'} empty, but must be filled"
    if kind == "INT":
        is_whole = re.fullmatch(r"\s*[+-]?[0-9]+\s*", str(raw))
        return "is too large for 64 bits (INT)" if is_whole else "is not a whole number (INT)"
    if kind == "FLOAT":
        is_number = not is_text or re.fullmatch(pattern("FLOAT", form), str(raw))
        return "is too large for 32 bits (FLOAT)" if is_number else "is not a number (FLOAT)"
    return f"is not {form.encoding if is_text else 'UTF-8'}"


def number(kind: str, text: str, form: CsvFormat) -> str:
    """SQL for the number that a text is; a cast alone would take 2.5 for 3, and 1_000."""
    clean = text
    for other in filter(None, [*form.units, form.thousands]):
        clean = f"replace({clean}, {literal(other)}, '')"
    if form.decimal != ".":
        clean = f"replace({clean}, {literal(form.decimal)}, '.')"
    is_number = f"regexp_full_match({text}, {literal(pattern(kind, form))})"
    if named := [word for word in form.nulls if re.fullmatch(pattern("FLOAT", form), word)]:
        is_number += f" AND trim({text}) NOT IN ({_listed(named)})"
    return f"CASE WHEN {is_number} THEN TRY_CAST({clean} AS {_SQL[kind]}) END"


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


def _width(source: _Source, index: int, form: CsvFormat) -> str:
    """SQL for the kind of a column of texts, by its widest value; text if all stand for none."""
    text, is_text = f"r{index}", "false"
    if source.plain.kind == "json":  # "12" in quotation marks is a text there.
        is_text = f"json_type(line, {_pointer([*source.types][index])}) = 'VARCHAR'"
    whole = f"regexp_full_match({text}, {literal(pattern('WHOLE', form))})"
    return (
        f"['BYTES', 'INT', 'FLOAT', 'BYTES'][1 + coalesce(max(CASE WHEN nullif({text}, '') IS NULL "
        f"THEN NULL WHEN trim({text}) IN ({_listed(form.nulls)}) THEN 0 WHEN {is_text} THEN 3 "
        f"WHEN {whole} AND {number('INT', text, form)} IS NOT NULL THEN 1 "
        f"WHEN isfinite({number('FLOAT', text, form)}) THEN 2 ELSE 3 END), 1)]"
    )


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


def _check_names(file: str, names: list[str], why: str) -> None:
    mistakes = [
        f"column '{name}' is there {n} times" for name, n in Counter(names).items() if n > 1
    ]
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
        yield f"column {shown(name)} is not {where}{did_you_mean(name, missing, 0.5)}"
    if len(others) > 5:
        yield f"and {len(others) - 5} more"
    if missing:
        yield f"missing: {', '.join(missing)}"
