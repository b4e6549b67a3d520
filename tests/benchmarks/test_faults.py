import copy
import random

import pytest

from benchmarks.replay import faults
from benchmarks.replay.faults import BEGIN, CLEAN, END, FAULTS, Found, Span
from benchmarks.replay.stage import read_quarters
from components.continued_evaluation import evidence as ev
from components.continued_evaluation.decision import Decision, Reason
from components.continued_evaluation.history import Record

SPAN, BEFORE = 9, 8


@pytest.fixture(scope="module")
def span():
    taxi = read_quarters()
    return Span(taxi.header, taxi.spans[SPAN], taxi.spans[BEFORE])


def made(name, span, seed=1):
    return FAULTS[name](span, random.Random(seed))


def column(span, rows, name):
    return [row[span.header.index(name)] for row in rows]


def changed_columns(span, rows):
    pairs = [(old, new) for old, new in zip(span.rows, rows, strict=True) if old != new]
    return {
        name for n, name in enumerate(span.header) if any(old[n] != new[n] for old, new in pairs)
    }


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_repeatable_and_leaves_the_span_as_it_was(name, span):
    before = copy.deepcopy(span)
    once, again = made(name, span), made(name, span)
    assert once == again != span.rows
    assert span == before
    assert all(len(row) == len(span.header) for row in once)


@pytest.mark.parametrize(
    ("name", "column"),
    {
        "fare in cents": "fare",
        "half the fares in cents": "fare",
        "a tenth of the fares in cents": "fare",
        "miles in kilometres": "trip_miles",
        "renamed category": "payment_type",
        "sensor at zero": "trip_miles",
        "sensor silent": "trip_miles",
        "labels of the next row": "big_tipper",
        "one label in five flipped": "big_tipper",
        "one label in twenty flipped": "big_tipper",
        "shuffled labels": "big_tipper",
    }.items(),
)
def test_a_fault_touches_its_own_column_only(name, column, span):
    assert changed_columns(span, made(name, span)) == {column}


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("fare in cents", 1),
        ("half the fares in cents", 2),
        ("a tenth of the fares in cents", 10),
    ],
)
def test_one_fare_in_so_many_is_a_hundred_times_as_high(name, share, span):
    old = [float(value) for value in column(span, span.rows, "fare")]
    new = [float(value) for value in column(span, made(name, span), "fare")]
    ratios = [round(b / a) for a, b in zip(old, new, strict=True) if a > 0]
    assert set(ratios) <= {1, 100}
    free = old.count(0)
    assert free < 10
    assert len(old) // share - free <= ratios.count(100) <= len(old) // share


def test_miles_are_kilometres(span):
    old = [float(value) for value in column(span, span.rows, "trip_miles")]
    new = [float(value) for value in column(span, made("miles in kilometres", span), "trip_miles")]
    assert new == [pytest.approx(value * 1.609344, rel=1e-5) for value in old]


def test_credit_card_is_spelt_otherwise_and_nothing_else(span):
    old = column(span, span.rows, "payment_type")
    new = column(span, made("renamed category", span), "payment_type")
    assert [value.replace("credit card", "Credit Card") for value in new] == old
    assert new.count("credit card") == old.count("Credit Card") > 0


def test_a_broken_sensor_says_zero_or_nothing(span):
    assert set(column(span, made("sensor at zero", span), "trip_miles")) == {"0.0"}
    assert set(column(span, made("sensor silent", span), "trip_miles")) == {""}


def test_shifted_labels_are_those_of_the_next_row(span):
    old = column(span, span.rows, faults.LABEL)
    new = column(span, made("labels of the next row", span), faults.LABEL)
    assert new == old[1:] + old[:1]


@pytest.mark.parametrize(
    ("name", "share"), [("one label in five flipped", 5), ("one label in twenty flipped", 20)]
)
def test_one_label_in_so_many_is_flipped(name, share, span):
    old = column(span, span.rows, faults.LABEL)
    new = column(span, made(name, span), faults.LABEL)
    different = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert len(different) == len(span.rows) // share
    assert set(different) == {("0", "1"), ("1", "0")}


def test_shuffled_labels_are_the_same_ones(span):
    old = column(span, span.rows, faults.LABEL)
    new = column(span, made("shuffled labels", span), faults.LABEL)
    assert sorted(new) == sorted(old)


def test_files_come_twice_or_late(span):
    assert made("span twice", span) == span.rows * 2
    assert made("span before again", span) == span.before


def found(fault, span, action, *kinds):
    """An evaluation in which these checks spoke."""
    reasons = [Reason(kind=k, leads_to=a, text=k, column=c) for k, a, c in kinds]
    evidence = ev.Evidence(
        span=span,
        rows=ev.Rows(total=200),
        champion=1,
        previous=None,
        metrics={},
        rows_by_slice={},
        promoted={},
        moved=[],
        anomalies=[],
        age=ev.Age(spans=1, days=0),
    )
    record = Record(
        id=f"span-{span}",
        number=1,
        time="",
        run_id="",
        source="",
        evidence=evidence,
        decision=Decision(action=action, reasons=reasons),
        settings={},
    )
    return Found(fault, span, record)


ALL = [
    found(CLEAN, 5, "keep"),
    found(CLEAN, 6, "keep", ("few_rows", "keep", None)),
    found("cents", 5, "investigate", ("drift_from_before", "investigate", "fare")),
    found("cents", 6, "retrain", ("metric", "retrain", None)),
    found("mute", 5, "investigate", ("anomaly", "investigate", "trip_miles")),
    Found("mute", 6, None),
]


def test_the_table_says_which_check_spoke_in_which_span_and_where_none_did():
    lines = faults.table(ALL, [CLEAN, "cents", "mute"]).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == [
        *("fault", "spans", "anomaly", "drift from before", "metric", "the run stopped"),
        *("nothing", "decision"),
    ]
    assert rows[2] == [CLEAN, "5, 6", "", "", "", "", "all", "keep 2"]
    assert rows[3] == ["cents", "5, 6", "", "5", "6", "", "", "investigate 1, retrain 1"]
    assert rows[4] == ["mute", "5, 6", "5", "", "", "6", "", "investigate 1, the run stopped 1"]
    assert len({len(line) for line in lines}) == 1


def test_a_line_names_the_columns():
    assert faults.line(ALL[2]) == "  span  5, cents: investigate (drift_from_before fare)"
    assert faults.line(ALL[0]) == f"  span  5, {CLEAN}: keep"


def test_the_table_replaces_the_one_in_the_documentation_and_nothing_else(tmp_path):
    page = tmp_path / "faults.md"
    page.write_text(f"Before.\n{BEGIN}\nold\n{END}\nAfter.\n")
    faults.write_page("| new |", page)
    assert page.read_text() == f"Before.\n{BEGIN}\n| new |\n{END}\nAfter.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["faults.md"]


def test_the_documentation_has_a_row_for_every_fault():
    text = faults.PAGE.read_text()
    made_by_command = text.partition(BEGIN)[2].partition(END)[0]
    rows = [line.split("|")[1].strip() for line in made_by_command.strip().splitlines()]
    assert rows[2:] == [CLEAN, *FAULTS]
