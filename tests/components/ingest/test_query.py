"""data.sql: by row or over a span, checked first; and the first rows, for a schema."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import PipelineStop
from components.ingest.query import check, sample, used_rows
from components.ingest.rows import Columns
from components.ingest.settings import CsvFormat, NamedTable, Query

COLUMNS = Columns({"id": "INT", "x": "FLOAT", "name": "BYTES"}, {"id"}, "id")
ROWS = "id,x,zone,day\n1,2.5,7,2020-01-01\n2,NA,8,2020-01-03\n3,1,9,2020-01-02\n"
ZONES = "zone,name,since\n7,north,2019-01-01\n8,south,2019-01-01\n8,south-east,2020-01-02\n"


@pytest.fixture
def run(tmp_path: Path):
    """Runs a query over the rows and the zones; returns the rows, and the bad ones."""

    def run_query(sql, rows=ROWS, **settings):
        path, zones = tmp_path / "rows.csv", tmp_path / "zones.csv"
        path.write_text(rows)
        zones.write_text(ZONES)
        sql = sql.replace("ROWS.CSV", str(path))
        query = Query(sql=sql, tables={"zones": NamedTable(files=[str(zones)])}, **settings)
        with used_rows([str(path)], CsvFormat(), COLUMNS, query) as used:
            found = [tuple(row.values()) for batch in used for row in batch.to_pylist()]
            return found, [str(row).strip() for row in used.bad_rows]

    return run_query


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        pytest.param(
            "SELECT id, x, CASE WHEN x > 2 THEN 'high' WHEN x < 2 THEN 'low' ELSE 'unsure' END "
            "AS name FROM rows",
            [(1, 2.5, b"high"), (2, None, b"unsure"), (3, 1.0, b"low")],
            id="neutral class",
        ),
        pytest.param(
            "SELECT id, x, name FROM rows LEFT JOIN zones USING (zone) WHERE since < '2020'",
            [(1, 2.5, b"north"), (2, None, b"south")],
            id="look-up",
        ),
        pytest.param(
            "SELECT id, x, zones.name FROM rows ASOF LEFT JOIN zones "
            "ON rows.zone = zones.zone::VARCHAR AND rows.day >= zones.since",
            [(1, 2.5, b"north"), (2, None, b"south-east"), (3, 1.0, None)],
            id="point in time",
        ),
        pytest.param(
            "WITH r AS (SELECT * FROM rows) SELECT id, (SELECT count(*) FROM zones) AS x, "
            "zone AS name FROM r -- a comment\n;",
            [(1, 3.0, b"7"), (2, 3.0, b"8"), (3, 3.0, b"9")],
            id="aggregate of another table",
        ),
        pytest.param(
            "SELECT id, (SELECT count(*) FROM zones WHERE zones.zone::VARCHAR = rows.zone) AS x, "
            "unnest(['a']) AS name FROM rows ORDER BY id",
            [(1, 1.0, b"a"), (2, 2.0, b"a"), (3, 0.0, b"a")],
            id="correlated with another table",
        ),
        pytest.param(
            "SELECT id, x, name FROM zones JOIN rows ON rows.id = 1 AND since < '2020' "
            "AND (rows.zone = '7' OR zones.name = 'x')",
            [(1, 2.5, b"north"), (1, 2.5, b"south")],
            id="join by OR",
        ),
        pytest.param(
            "SELECT rows.id, x, drawn.names[1 + (hash(rows.id, 42) % len(drawn.names))::INT] AS "
            "name FROM rows CROSS JOIN (SELECT list(name ORDER BY name) AS names FROM zones) drawn",
            [(1, 2.5, b"south-east"), (2, None, b"south"), (3, 1.0, b"north")],
            id="drawn from another table",
        ),
    ],
)
def test_a_query_over_each_row(run, sql, expected):
    found, bad = run(sql)
    assert sorted(found) == expected
    assert not bad


def test_a_window_over_the_span(run):
    sql = "SELECT id, avg(x) OVER (ORDER BY day ROWS 1 PRECEDING) AS x, day AS name FROM rows"
    found, _ = run(sql, over="span")
    assert sorted(found)[1] == (2, 1.0, b"2020-01-03")


def test_a_column_that_old_files_lack(run):
    sql = "SELECT id, x, coalesce(zone_name, 'zone ' || zone) AS name FROM rows"
    assert run(sql, columns={"zone_name": "BYTES"})[0][0] == (1, 2.5, b"zone 7")


def test_bad_rows_before_and_after_the_query(run):
    rows = ROWS + "x,1,1,2020\n"
    _, bad = run("SELECT nullif(id, 2) AS id, x, zone AS name FROM rows", rows)
    assert bad == [
        "line 5, column 'id': 'x' is not a whole number (INT)",
        "row 2, column 'id': is empty, but must be filled",
    ]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT id, x, sum(x) OVER () AS name FROM rows", "has a window function"),
        ("SELECT id, max(x) AS x, 'a' AS name FROM rows GROUP BY id", "has GROUP BY"),
        ("SELECT DISTINCT id, x, zone AS name FROM rows", "has DISTINCT"),
        ("SELECT id, x, zone AS name FROM rows LIMIT 3", "has LIMIT"),
        ("SELECT id, x, zone AS name FROM rows USING SAMPLE 3", "has SAMPLE"),
        ("SELECT a.id, b.x, a.zone AS name FROM rows a, rows b", "has 'rows' twice"),
        ("SELECT id, x, name FROM rows RIGHT JOIN zones USING (zone)", "has a join that keeps"),
        ("SELECT id, x, name FROM zones LEFT JOIN rows USING (zone)", "has a join that keeps"),
        (
            "SELECT id, x, name FROM rows FULL JOIN zones ON id = 1 OR x = 1",
            "has a join that keeps",
        ),
        ("SELECT id, x, name FROM rows POSITIONAL JOIN zones", "has a join that keeps"),
        (
            "WITH r AS (FROM rows) SELECT a.id, b.x, a.zone AS name FROM r a, r b",
            "has 'rows' twice",
        ),
        ("SELECT id, x, (SELECT max(zone) FROM rows) AS name FROM rows", "has 'rows' twice"),
        ("SELECT 1 AS id, 1 AS x, name FROM zones WHERE zone IN (SELECT id FROM rows)", "subquery"),
        ("FROM (SELECT id, x, zone AS name FROM rows) UNION ALL SELECT 1, 2, 'a'", "has UNION"),
    ],
)
def test_what_depends_on_other_rows_is_for_a_span(run, sql, words):
    with pytest.raises(PipelineStop, match=words) as stop:
        run(sql)
    assert "Set data.sql_over to span" in str(stop.value)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC", "syntax error"),
        ("DELETE FROM rows", "Only SELECT"),
        ("SELECT 1; SELECT 2", "several statements"),
        ("SELECT id, x FROM rows", "the columns do not fit: missing: name"),
        ("SELECT *, 'a' AS name FROM rows", "column 'zone' is not in the schema"),
        ("SELECT id, x, 1.5 AS name FROM rows", "is DECIMAL.*, and BYTES in the schema"),
        ("SELECT id, x, nane AS name FROM rows", '"nane" not found'),
        ("SELECT id, random() AS x, zone AS name FROM rows", "calls random"),
        ("SELECT id, x, now()::VARCHAR AS name FROM rows", "calls now"),
        ("SELECT id, x, column0 AS name FROM rows, read_csv('/etc/passwd')", "can't be run: Perm"),
        ("SELECT id, x, content AS name FROM rows, '/etc/passwd'", "can't be run"),
        ("SELECT id, x, current_date::VARCHAR AS name FROM rows", "calls current_date"),
        ("SELECT id, x, zone AS name FROM rows, duckdb_settings()", "reads from duckdb_settings"),
        ("SELECT id, x, zone AS name FROM read_csv('ROWS.CSV')", "reads from read_csv"),
        ("SELECT id, x, name FROM rows, 'https://example.com/a.parquet'", "can't be run"),
        ("SELECT id, x, name FROM query('FROM rows')", "calls query"),
        (
            "SELECT zone::DATE::VARCHAR AS name, id, x FROM rows",
            "data.sql can't be run: Conversion",
        ),
    ],
)
def test_a_query_that_cannot_be_used_is_explained(run, sql, words):
    with pytest.raises(PipelineStop, match=words):
        run(sql)


def test_a_query_is_checked_before_any_row_is_read(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text(ROWS + '"not closed\n')
    check([str(path)], CsvFormat(), COLUMNS, Query(sql="SELECT id, x, zone AS name FROM rows"))
    with pytest.raises(PipelineStop, match="the columns do not fit"):
        check([str(path)], CsvFormat(), COLUMNS, Query(sql="SELECT id, x FROM rows"))


def test_types_are_the_narrowest_that_hold_every_value(write):
    path = write("a.csv", "i,f,t,g,e\n1, 2.5 ,007,nan,\n-2,1,x,3,\n")
    table = sample([path], CsvFormat(), 100)
    types = [pa.int64(), pa.float32(), pa.string(), pa.int64(), pa.int64()]
    assert table.schema.types == types
    assert table.to_pydict() == {
        "i": [1, -2], "f": [2.5, 1.0], "t": ["007", "x"], "g": [None, 3], "e": [None, None],
    }  # fmt: skip


def test_a_column_of_several_files_has_the_widest_of_their_types(write, tmp_path):
    first = write("1.csv", "a,b,c\n1,01,1\n")
    second = write("2.csv.gz", "c,b,a\n1.5,x,2\n")
    third = str(tmp_path / "3.parquet")
    pq.write_table(pa.table({"a": [0.5], "b": ["3"], "c": [4]}), third)
    table = sample([first, second, third], CsvFormat(), 100)
    assert table.to_pydict() == {"a": [1.0, 2.0, 0.5], "b": ["01", "x", "3"], "c": [1.0, 1.5, 4.0]}


def test_no_more_rows_are_read_than_asked_for(write):
    files = [write(f"{n}.csv", "a\n" + f"{n}\n" * 10) for n in range(3)]
    assert sample(files, CsvFormat(), 15).to_pydict() == {"a": [0] * 10 + [1] * 5}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty. A header"),
        (b"a,b\n", "has a header, but no rows"),
        (b"a,b,a,\n1,2,3,4\n", "column 'a' is there 2 times; column 4 has no name"),
        (b"a,b\n1\n", "line 2: 1 fields, the header has 2"),
        (b"a,b\n\xff,1\n", "line 2, column 'a': '?,1' is not UTF-8"),
        (b"\xff,b\n1,1\n", "set data.csv.encoding"),
        (b"a;b\n1;2\n", "set data.csv.separator to ';'"),
        (b'a,b\n1,"x\n', "a quotation mark in row 1 is not closed"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(write, content, words):
    path = write("a.csv", content)
    with pytest.raises(PipelineStop) as stop:
        sample([path], CsvFormat(), 9)
    assert str(stop.value).startswith(path)
    assert words in str(stop.value)


def test_other_columns_in_another_file_are_named(write):
    files = [write("1.csv", "a,b\n1,2\n"), write("2.csv", "b,c\n1,2\n")]
    with pytest.raises(PipelineStop, match=r"2\.csv: .*'c' is not in .*/1\.csv; missing: a\."):
        sample(files, CsvFormat(), 9)


def test_older_files_may_lack_a_column_that_a_query_bridges(write):
    files = [write("1.csv", "a,old\n1,x\n"), write("2.csv", "new,a,old\nz,2,y\n")]
    bridge = Query(sql="SELECT a, coalesce(new, old) AS b FROM rows", columns={"new": "BYTES"})
    assert sample(files, CsvFormat(), 9, bridge).to_pydict() == {"a": [1, 2], "b": ["x", "z"]}
