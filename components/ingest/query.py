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
from components.ingest.rows import SHOWN, Columns, Reading, Tables, Wanted, literal
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
Types = Mapping[str, Wanted]
_Node = dict[str, Any]


@contextlib.contextmanager
def used_rows(
    files: Sequence[str],
    form: CsvFormat,
    columns: Columns,
    query: Query | None = None,
    keep: int = SHOWN,
    types: Types | None = None,
) -> Iterator[Reading]:
    """Yields the rows of a file, or of several for a query.

    Args:
        files: Their paths; one, if there is no query.
        form: How those of CSV and JSON are written.
        columns: What comes out.
        query: What they are put through.
        keep: So many bad rows are kept.
        types: Of more columns, which the query may read.

    Raises:
        PipelineStop: If a file can't be used, or the query can't; before any row of it is read.
    """
    with rows.tables([*files, *(query.files() if query else [])], form) as tables:
        if query is None:
            yield tables.read(files[0], columns, keep)
            return
        before = _prepared(tables, files, columns, query, types or {})
        loaded = tables.fill(ROWS, files, before, keep)
        yield tables.select(query.sql, columns, keep, loaded)


def check(
    files: Sequence[str],
    form: CsvFormat,
    columns: Columns,
    query: Query,
    types: Types | None = None,
) -> None:
    """Checks a query against the columns of some files and the schema; no row of them is read.

    Raises:
        PipelineStop: With what is wrong.
    """
    with rows.tables([*files, *query.files()], form) as tables:
        _prepared(tables, files, columns, query, types or {})


def sample(
    files: Sequence[str], form: CsvFormat, limit: int, query: Query | None = None
) -> pa.Table:
    """The first rows of some files as one table, to infer a schema from.

    Args:
        files: Their paths.
        form: How those of CSV and JSON are written.
        limit: At most so many rows, of all files together.
        query: What they are put through.

    Returns:
        int64, float64 and string, as the values show; the columns of the query's result, or those
        of the first file. Bad rows are left out.

    Raises:
        PipelineStop: If a file can't be read, has no rows, no usable header, or other columns than
            the first; or the query can't be run.
    """
    if mistakes := [f"{'.'.join(path)} {message}" for path, message in form.problems()]:
        raise PipelineStop(f"data.csv is wrong: {'; '.join(mistakes)}.")
    if not files:
        raise PipelineStop("There are no data files; see data.path and data.pattern.")
    with rows.tables([*files, *(query.files() if query else [])], form) as tables:
        kinds: dict[str, Wanted] = dict(tables.kinds(files, limit))
        if query:
            _check_words(query, tables.connection)
            _load_others(tables, query)
            there = dict.fromkeys(name for file in files for name in tables.columns(file))
            kinds = dict.fromkeys([*query.columns, *there]) | kinds | query.columns
        else:
            kinds = _doubled(kinds)
        before = Columns(kinds, exact=query is None, optional=[*kinds] if query else [])
        loaded = tables.load(ROWS, files, before, limit=limit)
        sql = query.sql if query else f"SELECT * FROM {ROWS}"
        own = {name: rows.kind_of(type_) for name, type_ in _described(tables, sql).items()}
        reading = tables.select(sql, Columns(_doubled(own)), SHOWN, loaded)
        return pa.Table.from_batches([*reading.batches(as_text=True)])


def _doubled(kinds: Types) -> dict[str, Wanted]:
    return {name: "DOUBLE" if kind == "FLOAT" else kind for name, kind in kinds.items()}


def _load_others(tables: Tables, query: Query) -> None:
    for name, table in query.tables.items():
        own = tables.kinds(table.files, _INFERRED_FROM) | table.columns
        loaded = tables.load(name, table.files, Columns(own))
        if loaded.bad:
            raise rows.stop_at(f"data.tables.{name}", loaded.bad, loaded.bad_rows)


def _prepared(
    tables: Tables, files: Sequence[str], columns: Columns, query: Query, types: Types
) -> Columns:
    """Makes the tables of a query, `rows` still empty, and returns the columns of `rows`."""
    _check_words(query, tables.connection)
    _load_others(tables, query)
    there = dict.fromkeys(name for file in files for name in tables.columns(file))
    known = {**columns.kinds, **types, **query.columns}
    kinds = {name: known.get(name) for name in there} | query.columns
    before = Columns(kinds, label=columns.label, exact=False, optional=[*kinds])
    tables.create(ROWS, files, before)
    _check_result(_described(tables, query.sql), columns)
    return before


def _described(tables: Tables, sql: str) -> dict[str, str]:
    """DuckDB's types of the columns of a result."""
    try:
        described = tables.connection.sql(f"DESCRIBE {sql}").fetchall()
    except duckdb.Error as error:
        raise PipelineStop(
            f"data.sql can't be run: {str(error).strip()[:500]}\nCorrect the query, or "
            "name columns that the files may lack under data.columns."
        ) from error
    return {row[0]: row[1] for row in described}


def _check_result(types: Mapping[str, str], columns: Columns) -> None:
    needed = {columns.of.get(name, name) for name in columns.kinds} - {*columns.optional}
    problems = [f"it gives no column '{name}'" for name in sorted(needed - {*types})]
    others = [name for name in types if name not in columns.kinds] if columns.exact else []
    problems += [f"column '{name}' is not in the schema" for name in others]
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


def _check_words(query: Query, connection: duckdb.DuckDBPyConnection) -> None:
    """Checks what can be seen without the columns: one SELECT, repeatable, row by row if said."""
    [(serialized,)] = connection.sql(f"SELECT json_serialize_sql({literal(query.sql)})").fetchall()
    tree = json.loads(serialized)
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
        called = str((part.get("function") or {}).get("function_name", "")).lower()
        if part.get("type") == "TABLE_FUNCTION" and called not in _TABLE_FUNCTIONS:
            raise PipelineStop(
                f"data.sql reads from {called}(). It can read from 'rows' and from data.tables "
                "alone."
            )
    if query.over == "row" and (why := _depends(node, connection)):
        raise PipelineStop(
            f"data.sql has {why}: a row depends on other rows. Set data.sql_over to span, so that "
            "the query sees all files of a span together, or leave it out."
        )


def _depends(node: _Node, connection: duckdb.DuckDBPyConnection) -> str | None:
    """Why a row that comes out may depend on several rows of `rows`; None if it does not."""
    aggregates = {"count_star"} | {
        row[0]
        for row in connection.execute(
            "SELECT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
        ).fetchall()
    }
    names = {ROWS}  # and the common tables that read from it
    for part in _parts(node):
        for entry in (part.get("cte_map") or {}).get("map", []):
            if _reads(entry["value"], names):
                names.add(entry["key"].lower())
    for name in names:
        if sum(_is_table(part, {name}) for part in _parts(node)) > 1:
            return f"'{name}' twice"
    if any(part.get("type") == "SHOW_REF" for part in _parts(node)):
        return "SUMMARIZE"
    return next(filter(None, (_reason(part, names, aggregates) for part in _parts(node))), None)


def _reason(part: _Node, names: set[str], aggregates: set[str]) -> str | None:
    """Why one part of a query is not row by row."""
    kind = part.get("type")
    if kind == "SELECT_NODE" and _reads(part.get("from_table"), names):
        return _select(part, aggregates)
    if not _reads(part, names):
        return None
    if kind in ("SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"):
        return "UNION, EXCEPT, INTERSECT or a recursion over rows"
    if part.get("class") == "SUBQUERY":
        return "a subquery over rows"
    if kind == "JOIN":
        is_left, joined = not _reads(part["right"], names), part["join_type"]
        if joined != "INNER" and not (is_left and joined in ("LEFT", "SEMI", "ANTI")):
            return f"a {joined} join that keeps rows of the other table"
    return None


def _select(part: _Node, aggregates: set[str]) -> str | None:
    """Why a SELECT from `rows` is not row by row."""
    modifiers = {modifier["type"] for modifier in part.get("modifiers", [])}
    forced = part.get("aggregate_handling") == "FORCE_AGGREGATES"
    reasons = {
        "LIMIT": modifiers & {"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"},
        "DISTINCT": "DISTINCT_MODIFIER" in modifiers,
        "GROUP BY": part.get("group_expressions") or forced,
        "a sample": part.get("sample"),
    }
    own: list[Any] = [
        part.get(name) for name in ("select_list", "where_clause", "qualify", "having")
    ]
    for inner in _parts(own, subqueries=False):
        name = inner.get("function_name")
        reasons[f"the window function {name}"] = inner.get("class") == "WINDOW"
        reasons[f"the aggregate {name}"] = inner.get("class") == "FUNCTION" and name in aggregates
    return next((reason for reason, is_there in reasons.items() if is_there), None)


def _parts(node: Any, subqueries: bool = True) -> Iterator[_Node]:
    """Yields every object of a tree; without those within subqueries if told so."""
    if isinstance(node, dict):
        if not subqueries and node.get("class") == "SUBQUERY":
            return
        yield node
        node = [*node.values()]
    if isinstance(node, list):
        for inner in node:
            yield from _parts(inner, subqueries)


def _reads(node: Any, names: set[str]) -> bool:
    return any(_is_table(part, names) for part in _parts(node))


def _is_table(part: _Node, names: set[str]) -> bool:
    return part.get("type") == "BASE_TABLE" and str(part.get("table_name")).lower() in names
