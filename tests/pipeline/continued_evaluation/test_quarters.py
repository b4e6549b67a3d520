import csv
from collections import Counter
from datetime import UTC, datetime

import pytest

from components.errors import PipelineStop
from components.ingest import spans
from pipeline import loading
from pipeline.continued_evaluation import first_year, quarters
from pipeline.continued_evaluation.quarters import TIME, divide, read_quarters, write_span


@pytest.fixture(scope="module")
def taxi():
    return read_quarters()


def seconds(text):
    return str(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()))


def test_the_taxi_rows_are_sixteen_spans_from_2013_to_2016(taxi):
    assert list(taxi.spans) == list(range(1, 17))
    assert (taxi.name(1), taxi.name(6), taxi.name(16)) == ("2013 Q1", "2014 Q2", "2016 Q4")
    sizes = [len(rows) for rows in taxi.spans.values()]
    assert (min(sizes[:12]), max(sizes[:12])) == (884, 1380)
    assert (min(sizes[12:]), max(sizes[12:])) == (201, 222)


def test_every_row_is_in_one_span_with_its_text_as_it_was(taxi):
    config = loading.load("taxi")
    (path,) = loading.data_folder(config).glob(config.data.pattern)
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert taxi.header == header
    divided = Counter(tuple(row) for found in taxi.spans.values() for row in found)
    assert divided == Counter(map(tuple, rows))


def test_a_quarter_ends_at_midnight_utc():
    last, first = seconds("2014-03-31T23:59:59"), seconds("2014-04-01T00:00:00")
    found = divide(["a", TIME], [["late", last], ["early", first], ["later", last]])
    assert [[row[0] for row in rows] for rows in found.spans.values()] == [
        ["late", "later"],
        ["early"],
    ]
    assert (found.name(1), found.name(2), found.name(5)) == ("2014 Q1", "2014 Q2", "2015 Q1")


def test_a_quarter_without_rows_keeps_its_number_free():
    times = [seconds("2014-01-05T12:00:00"), seconds("2014-12-31T12:00:00")]
    assert list(divide([TIME], [[time] for time in times]).spans) == [1, 4]


def test_a_written_span_is_what_ingest_finds_and_reads_back(tmp_path, taxi):
    odd = [["1", 'Taxi "Blue", Inc.'], ["2", "two\nlines"]]
    write_span(tmp_path, 3, ["number", "company"], odd)
    write_span(tmp_path, 4, taxi.header, taxi.spans[4])
    pattern = loading.load(first_year.CONFIG).data.pattern
    found = spans.resolve(str(tmp_path), pattern, 3)
    assert found.spans == [3]
    with open(found.files[0], newline="") as file:
        assert list(csv.reader(file)) == [["number", "company"], *odd]


def test_a_half_written_span_is_not_there(tmp_path):
    def rows():
        yield ["1"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_span(tmp_path, 1, ["number"], rows())
    pattern = loading.load(first_year.CONFIG).data.pattern
    with pytest.raises(PipelineStop, match="No file"):
        spans.resolve(str(tmp_path), pattern, "newest")
    write_span(tmp_path, 1, ["number"], [["1"]])
    assert spans.resolve(str(tmp_path), pattern, "newest").spans == [1]


def test_other_data_than_the_taxi_rows_are_refused_in_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    config = loading.load("taxi", [f"data.path={tmp_path}"])
    monkeypatch.setattr(quarters.loading, "load", lambda name: config)
    with pytest.raises(PipelineStop, match=f"in quarters by {TIME}"):
        read_quarters()


def test_a_replay_empties_only_folders_that_a_replay_made(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_text("kept")
    with pytest.raises(PipelineStop, match="not a replay that made"), first_year.emptied(mine):
        pass
    assert (mine / "precious").read_text() == "kept"
    its_own = tmp_path / "own"
    with first_year.emptied(its_own):
        (its_own / "registry" / "1").mkdir(parents=True)
        (its_own / "metadata.db").write_text("old")
    with first_year.emptied(its_own):
        assert [path.name for path in its_own.iterdir()] == [first_year._MARKER]


def test_two_replays_do_not_share_a_folder(tmp_path):
    with first_year.emptied(tmp_path / "own"):
        (tmp_path / "own" / "metadata.db").write_text("in use")
        second = first_year.emptied(tmp_path / "own")
        with pytest.raises(PipelineStop, match="Another replay is at work"), second:
            pass
        assert (tmp_path / "own" / "metadata.db").read_text() == "in use"


def test_data_outside_of_the_workspace_are_refused(tmp_path):
    given = [f"workspace={tmp_path / 'own'}", f"data.path={tmp_path / 'elsewhere'}"]
    stage = first_year.begin(given)
    with pytest.raises(PipelineStop, match="not inside the workspace"), stage:
        pass
    assert not (tmp_path / "own").exists()
