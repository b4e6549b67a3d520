"""The rows of some files as they are used: read, and put through the query of `data.sql`.

Training, evaluation and batch prediction read their rows here, so that all see the same. A query
selects from the table `rows` and from those of `data.tables`; what comes out has the schema's
columns. Over one row, each row that comes out depends on one row of `rows` alone, whatever stands
in the other tables: the files are read side by side. Over a span, the query sees all of a span.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from components.errors import PipelineStop
from components.ingest import rows
from components.ingest.rows import SHOWN, Columns, Reading, Tables, Wanted, literal
from components.ingest.settings import CsvFormat, Query

ROWS = "rows"
_SCANNED = 'memory.main."rows"'
_CHANGING = {
    *("now", "today", "current_date", "current_time", "current_timestamp", "localtime"),
    *("get_current_time", "get_current_timestamp", "transaction_timestamp", "localtimestamp"),
    *("current_localtime", "current_localtimestamp", "getvariable", "current_setting"),
    *("txid_current", "query", "query_table"),
}
"""Functions that say something else each time, beside those that DuckDB calls volatile."""
_LEAVES = {"SEQ_SCAN", "CTE_SCAN", "DUMMY_SCAN", "UNNEST", "RANGE", "GENERATE_SERIES"}
_LEAVES |= {"EMPTY_RESULT", "EXPRESSION_GET", "COLUMN_DATA_SCAN", "CHUNK_SCAN", "DELIM_GET"}
_BY_ROW = {"PROJECTION", "FILTER", "ORDER_BY", "UNNEST", "CTE", "CROSS_PRODUCT"}
"""Steps of DuckDB's plans in which each row that comes out is of one row that went in."""
_KEEPING = ("LEFT", "SEMI", "ANTI", "SINGLE")
"""Joins that keep rows of their first table alone."""
_NAMES = {"WINDOW": "a window function", "AGGREGATE": "GROUP BY or an aggregate"}
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
    """Yields the rows of a file, or of several for a query; none is read before the first is asked.

    Args:
        files: Their paths; one, if there is no query.
        form: How those of CSV and JSON are written.
        columns: What comes out.
        query: What they are put through.
        keep: So many bad rows are kept.
        types: Of more columns, which the query may read.

    Raises:
        PipelineStop: If a file can't be used, or the query can't.
    """
    with rows.tables([*files, *(query.files() if query else [])], form, keep) as tables:
        if query is None:
            yield tables.read(files[0], columns)
            return
        known = {**columns.kinds, **(types or {})}
        kinds = {name: known.get(name) for name in _there(tables, files)} | query.columns
        yield _selected(tables, files, query, kinds, columns)


def check(
    files: Sequence[str],
    form: CsvFormat,
    columns: Columns,
    query: Query,
    types: Types | None = None,
) -> None:
    """Checks a query against the columns of some files and the schema; no row of them is read."""
    with used_rows(files, form, columns, query, types=types):
        pass


def sample(
    files: Sequence[str], form: CsvFormat, limit: int, query: Query | None = None
) -> pa.Table:
    """The first rows of some files, or of what a query makes of them, to infer a schema from.

    They are int64, float32 and string, as the values show; bad rows are left out. Without a query,
    all files must have the same columns.

    Raises:
        PipelineStop: If a file can't be read, has no rows, no usable header, or other columns than
            the first; or the query can't be run.
    """
    with rows.tables([*files, *(query.files() if query else [])], form) as tables:
        kinds: dict[str, Wanted] = dict(tables.kinds(files, limit, exact=query is None))
        if query:
            kinds = dict.fromkeys(_there(tables, files)) | kinds | query.columns
        query = query or Query(sql=f"SELECT * FROM {ROWS}")
        reading = _selected(tables, files, query, kinds, limit=limit)
        return pa.Table.from_batches([*reading.with_strings()])


def _there(tables: Tables, files: Sequence[str]) -> list[str]:
    return [*dict.fromkeys(name for file in files for name in tables.columns(file))]


def _selected(
    tables: Tables,
    files: Sequence[str],
    query: Query,
    kinds: Types,
    columns: Columns | None = None,
    limit: int | None = None,
) -> Reading:
    """Checks a query, and returns what it makes of `rows`, which is filled when that is read.

    `kinds` are the columns of `rows`, null where a file lacks them; `columns` must come out, or, if
    None, all that does.
    """
    label = columns.label if columns else None
    before = Columns(kinds, label=label, exact=False, optional=[*kinds])
    for name, table in query.tables.items():
        own = Columns(tables.kinds(table.files, 1_000_000) | table.columns)
        tables.create(name, table.files, own)
        for reading in tables.fill(name, table.files, own):
            reading.check()
    tables.create(ROWS, files, before)
    types = _checked(tables, query.sql, by_row=query.over == "row")
    columns = columns or Columns({name: rows.kind_of(type_) for name, type_ in types.items()})
    fill = partial(tables.fill, ROWS, files, before, limit)
    return tables.select(query.sql, types, columns, fill)


def _checked(tables: Tables, sql: str, by_row: bool) -> dict[str, str]:
    """DuckDB's types of the columns of a query that is one SELECT, repeatable, and by row if said.

    DuckDB itself says how it would be run; that plan, before it is optimized, is looked at.
    """
    run = tables.connection
    [(serialized,)] = run.sql(f"SELECT json_serialize_sql({literal(sql)})").fetchall()
    tree = json.loads(serialized)
    if tree.get("error"):
        raise PipelineStop(f"data.sql can't be read: {tree['error_message']}. Correct the query.")
    if len(tree["statements"]) != 1:
        raise PipelineStop("data.sql has several statements. Write one SELECT.")
    volatile = "FROM duckdb_functions() SELECT function_name WHERE stability = 'VOLATILE'"
    changing = _CHANGING | {name for (name,) in run.sql(volatile).fetchall()} - {"error"}
    called = r'"function_name":"(\w+)"|"column_names":\["(current_\w+|local\w+)"\]'
    for name in ("".join(found).lower() for found in re.findall(called, serialized)):
        if name in changing:
            raise PipelineStop(
                f"data.sql calls {name}(), which differs each time: a run could not be repeated. "
                "Use values of the rows, e.g. hash(id)."
            )
    try:
        types = {row[0]: row[1] for row in run.sql(f"DESCRIBE {sql}").fetchall()}
        [plan] = json.loads(
            dict(run.sql(f"EXPLAIN (FORMAT json) {sql}").fetchall())["logical_plan"]
        )
    except duckdb.Error as error:
        raise PipelineStop(
            f"data.sql can't be run: {str(error).strip()[:500]}\nCorrect the query, or "
            "name columns that the files may lack under data.columns."
        ) from error
    for step in _steps(plan):
        if not step["children"] and step["name"] not in _LEAVES:
            raise PipelineStop(
                f"data.sql reads from {step['name'].lower()}(). It can read from 'rows' and from "
                "data.tables alone."
            )
    joins = {*re.findall(r'"join_type":"(\w+)"', serialized)} - {"INNER"}
    unnamed = "FULL" if {"FULL", "OUTER"} & joins else "LEFT" if joins else "INNER"
    if by_row and (why := _depends(plan, unnamed)):
        raise PipelineStop(
            f"data.sql has {why}: a row depends on other rows. Set data.sql_over to span, so that "
            "the query sees all files of a span together, or leave it out."
        )
    return types


def _depends(plan: _Node, unnamed: str) -> str | None:
    """Why a row that comes out of a plan may depend on several of `rows`; None if it does not.

    A join over a condition with OR has no type in the plan: it may be `unnamed`.
    """
    names = {_SCANNED}  # and the common tables that read from it

    def reads(step: _Node) -> bool:
        return not names.isdisjoint(map(_scanned, _steps(step)))

    for step in _steps(plan):
        if step["name"].endswith("CTE") and reads(step["children"][0]):
            names.add(step["extra_info"]["Table Index"])
    scans = Counter(map(_scanned, _steps(plan)))
    if any(scans[name] > 1 for name in names):
        return "'rows' twice"
    for step in filter(reads, _steps(plan)):
        name, is_first = step["name"], bool(step["children"]) and reads(step["children"][0])
        kind = step.get("extra_info", {}).get("Join Type", unnamed)
        if not name.endswith("_JOIN"):
            if step["children"] and name not in _BY_ROW:
                return _NAMES.get(name, name.replace("_", " "))
        elif kind == "MARK" or name == "DEPENDENT_JOIN":
            if not is_first:
                return "a subquery over rows"
        elif name == "POSITIONAL_JOIN" or (kind != "INNER" and not (is_first and kind in _KEEPING)):
            return "a join that keeps rows of the other table"
    return None


def _steps(plan: _Node) -> Iterator[_Node]:
    """Yields every step of a plan, from what comes out."""
    yield plan
    for child in plan["children"]:
        yield from _steps(child)


def _scanned(step: _Node) -> str | None:
    """What a step scans: a table by its name, or a common one by its number."""
    info = step.get("extra_info", {})
    return info.get("Table") or (info.get("CTE Index") if step["name"] == "CTE_SCAN" else None)
