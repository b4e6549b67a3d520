"""The rows of some files as they are used: read, and put through the query of `data.sql`.

Training, evaluation and batch prediction read their rows here, so that all see the same. A query
selects from the table `rows` and from those of `data.tables`; what comes out has the schema's
columns. Over one row, each row that comes out depends on one row of `rows` alone, whatever stands
in the other tables: the files are read side by side. Over a span, the query sees all of a span.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from components.errors import PipelineStop
from components.ingest import rows
from components.ingest.rows import BadRow, Columns, Loaded, Reading, Tables, Wanted, literal
from components.ingest.settings import CsvFormat, Query

ROWS = "rows"
_TABLE_FUNCTIONS = {"unnest", "range", "generate_series"}
_CHANGING = {
    *("random", "uuid", "uuidv4", "uuidv7", "gen_random_uuid", "setseed", "nextval", "currval"),
    *("now", "today", "current_date", "current_time", "current_timestamp", "localtimestamp"),
    *("get_current_time", "get_current_timestamp", "transaction_timestamp", "current_localtime"),
    *("current_localtimestamp", "localtime", "getvariable", "current_setting", "sleep_ms"),
    *("write_log", "txid_current", "current_connection_id", "current_query_id"),
}
"""Functions that say something else each time, or do more than to say something."""
_INFERRED_FROM = 1_000_000


class UsedRows:
    """The rows of some files after the query, as Arrow batches; what was bad when all is read."""

    def __init__(self, reading: Reading, loaded: Loaded | None = None) -> None:
        """Takes what is read, and what came of the files if a query reads them."""
        self._reading, self._loaded = reading, loaded

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yields the good rows, with the schema's columns."""
        yield from self._reading

    @property
    def seen(self) -> int:
        """Rows of the files so far, good and bad."""
        return self._reading.seen if not self._loaded else self._loaded.rows + self._loaded.bad

    @property
    def bad(self) -> int:
        """Bad rows so far, of the files and of the query's result."""
        return self._reading.bad + (self._loaded.bad if self._loaded else 0)

    @property
    def bad_rows(self) -> list[BadRow]:
        """The first few, when all is read."""
        return [*(self._loaded.bad_rows if self._loaded else []), *self._reading.bad_rows]

    def bad_so_far(self) -> list[BadRow]:
        """The first few while it is read; they count rows."""
        return [*(self._loaded.bad_rows if self._loaded else []), *self._reading.bad_so_far()]


@contextlib.contextmanager
def used_rows(
    files: Sequence[str],
    form: CsvFormat,
    columns: Columns,
    query: Query | None = None,
    keep: int = rows.SHOWN,
) -> Iterator[UsedRows]:
    """Yields the rows of a file, or of several for a query.

    Args:
        files: Their paths; one, if there is no query.
        form: How those of CSV and JSON are written.
        columns: What comes out.
        query: What they are put through.
        keep: So many bad rows are kept.

    Raises:
        PipelineStop: If a file can't be used, or the query can't; before any row of it is read.
    """
    with rows.tables([*files, *(query.files() if query else [])], form) as tables:
        if query is None:
            yield UsedRows(tables.read(files[0], columns, keep))
            return
        before = _prepared(tables, files, columns, query)
        loaded = tables.fill(ROWS, files, before, keep)
        yield UsedRows(tables.select(query.sql, columns, keep), loaded)


def check(files: Sequence[str], form: CsvFormat, columns: Columns, query: Query) -> None:
    """Checks a query against the columns of some files and the schema; no row of them is read.

    Raises:
        PipelineStop: With what is wrong.
    """
    with rows.tables([*files, *query.files()], form) as tables:
        _prepared(tables, files, columns, query)


def sample(files: Sequence[str], form: CsvFormat, query: Query, limit: int) -> pa.Table:
    """What a query makes of the first rows of some files, to infer a schema from.

    Raises:
        PipelineStop: If a file can't be read, or the query can't be run.
    """
    with rows.tables([*files, *query.files()], form) as tables:
        _check_words(query, tables.connection)
        _load_others(tables, query)
        kinds: dict[str, Wanted] = dict.fromkeys(query.columns)
        kinds |= dict.fromkeys(name for file in files for name in tables.columns(file))
        kinds |= {**tables.kinds(files, limit), **query.columns}
        columns = Columns(kinds, exact=False, optional=[*kinds])
        tables.load(ROWS, files, columns, limit=limit)
        found = tables.connection.sql(f"DESCRIBE {query.sql}").fetchall()
        own = {row[0]: rows.kind_of(row[1]) for row in found}
        seen: dict[str, Wanted] = {n: "DOUBLE" if k == "FLOAT" else k for n, k in own.items()}
        return pa.Table.from_batches([*tables.select(query.sql, Columns(seen))])


def _load_others(tables: Tables, query: Query) -> None:
    for name, table in query.tables.items():
        own = tables.kinds(table.files, _INFERRED_FROM) | table.columns
        loaded = tables.load(name, table.files, Columns(own))
        if loaded.bad:
            raise rows.stop_at(f"data.tables.{name}", loaded.bad, loaded.bad_rows)


def _prepared(tables: Tables, files: Sequence[str], columns: Columns, query: Query) -> Columns:
    """Makes the tables of a query, `rows` still empty, and returns the columns of `rows`."""
    _check_words(query, tables.connection)
    _load_others(tables, query)
    there = dict.fromkeys(name for file in files for name in tables.columns(file))
    known = {**columns.kinds, **query.columns}
    kinds = {name: known.get(name) for name in there} | query.columns
    before = Columns(kinds, label=columns.label, exact=False, optional=[*kinds])
    tables.create(ROWS, files, before)
    _check_result(tables, query, columns)
    return before


def _check_words(query: Query, connection: duckdb.DuckDBPyConnection) -> None:
    """Checks what can be seen without the columns: one SELECT, repeatable, row by row if said."""
    found = connection.execute(f"SELECT json_serialize_sql({literal(query.sql)})").fetchone()
    tree = json.loads(found[0]) if found else {}
    if tree.get("error"):
        raise PipelineStop(f"data.sql can't be read: {tree['error_message']}. Correct the query.")
    if len(tree["statements"]) != 1:
        raise PipelineStop("data.sql has several statements. Write one SELECT.")
    node = tree["statements"][0]["node"]
    for part in _parts(node):
        name = str(part.get("function_name", "")).lower()
        if name in _CHANGING:
            raise PipelineStop(
                f"data.sql calls {name}(), which differs each time: a run could not be repeated. "
                "Use values of the rows, e.g. hash(id)."
            )
        if part.get("type") == "TABLE_FUNCTION" and _called(part) not in _TABLE_FUNCTIONS:
            raise PipelineStop(
                f"data.sql reads from {_called(part)}(). It can read from 'rows' and from "
                "data.tables alone."
            )
    aggregates = {
        row[0]
        for row in connection.execute(
            "SELECT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
        ).fetchall()
    }
    why = None if query.over == "span" else _depends(node, aggregates | {"count_star"})
    if why:
        raise PipelineStop(
            f"data.sql has {why}: a row depends on other rows. Set data.sql_over to span, so that "
            "the query sees all files of a span together, or leave it out."
        )


def _check_result(tables: Tables, query: Query, columns: Columns) -> None:
    try:
        found = tables.connection.sql(f"DESCRIBE {query.sql}").fetchall()
    except duckdb.Error as error:
        raise PipelineStop(f"data.sql can't be run: {str(error).strip()[:500]}") from error
    types = {row[0]: row[1] for row in found}
    problems = [f"it gives no column '{name}'" for name in columns.kinds if name not in types]
    problems += [f"column '{n}' is not in the schema" for n in types if n not in columns.kinds]
    problems += [
        f"column '{name}' is {types[name]}, and {kind} in the schema"
        for name, kind in columns.kinds.items()
        if name in types and not rows.fits(types[name], kind)
    ]
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise PipelineStop(
            f"data.sql does not fit the schema: {'; '.join([*problems[:10], *more])}. Correct the "
            "query (EXCLUDE, REPLACE, CAST), or make and review the schema anew."
        )


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """Yields every object of a tree."""
    if isinstance(node, Mapping):
        yield dict(node)
    if isinstance(node, Mapping | list):
        for inner in node.values() if isinstance(node, Mapping) else node:
            yield from _parts(inner)


def _called(part: dict[str, Any]) -> str:
    return str(part.get("function", {}).get("function_name", "")).lower()


def _depends(node: dict[str, Any], aggregates: set[str]) -> str | None:
    """Why a row that comes out may depend on several rows of `rows`; None if it does not."""
    names = {ROWS}
    for name, inner in _common_tables(node):
        if _reads(inner, names):
            names.add(name)
    for name in names:
        if sum(_reads_itself(part, {name}) for part in _parts(node)) > 1:
            return f"'{name}' twice"
    return next(filter(None, (_reason(part, names, aggregates) for part in _parts(node))), None)


def _reason(part: dict[str, Any], names: set[str], aggregates: set[str]) -> str | None:
    """Why one part of a query is not row by row."""
    if part.get("type") == "SHOW_REF":
        return "SUMMARIZE"
    if part.get("type") == "SELECT_NODE" and _reads(part.get("from_table"), names):
        return _select(part, aggregates)
    if not _reads(part, names):
        return None
    if part.get("type") in ("SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"):
        return "UNION, EXCEPT, INTERSECT or a recursion over rows"
    if part.get("class") == "SUBQUERY":
        return "a subquery over rows"
    return _join(part, names) if part.get("type") == "JOIN" else None


def _common_tables(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for part in _parts(node):
        for entry in (part.get("cte_map") or {}).get("map", []):
            yield entry["key"].lower(), entry["value"]


def _reads(node: Any, names: set[str]) -> bool:
    return any(_reads_itself(part, names) for part in _parts(node))


def _reads_itself(part: dict[str, Any], names: set[str]) -> bool:
    return part.get("type") == "BASE_TABLE" and str(part.get("table_name")).lower() in names


def _join(part: dict[str, Any], names: set[str]) -> str | None:
    kind, left, right = part["join_type"], _reads(part["left"], names), _reads(part["right"], names)
    is_kept = kind == "INNER" or (kind in ("LEFT", "SEMI", "ANTI") and not right)
    if (left or right) and not is_kept:
        return f"a {kind} join that keeps rows of the other table"
    return None


def _select(part: dict[str, Any], aggregates: set[str]) -> str | None:
    """Why a SELECT from `rows` is not row by row."""
    modifiers = {modifier["type"] for modifier in part.get("modifiers", [])}
    forced = part.get("aggregate_handling") == "FORCE_AGGREGATES"
    reasons = {
        "LIMIT": modifiers & {"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"},
        "DISTINCT": "DISTINCT_MODIFIER" in modifiers,
        "GROUP BY": part.get("group_expressions") or forced,
        "a sample": part.get("sample"),
    }
    own = [part.get(name) for name in ("select_list", "where_clause", "qualify", "having")]
    for inner in _outside_subqueries(own):
        name = inner.get("function_name")
        reasons[f"the window function {name}"] = inner.get("class") == "WINDOW"
        reasons[f"the aggregate {name}"] = inner.get("class") == "FUNCTION" and name in aggregates
    return next((reason for reason, is_there in reasons.items() if is_there), None)


def _outside_subqueries(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, Mapping):
        if node.get("class") == "SUBQUERY":
            return
        yield dict(node)
    if isinstance(node, Mapping | list):
        for inner in node.values() if isinstance(node, Mapping) else node:
            yield from _outside_subqueries(inner)
