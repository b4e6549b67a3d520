"""The faults are what their names say; what finds them is in the replay's own proof."""

import pytest

from benchmarks import faults
from benchmarks.replay import read_quarters


@pytest.fixture(scope="module")
def quarters():
    return read_quarters()


@pytest.mark.parametrize(
    ("name", "column", "rows", "value"),
    [
        ("fare in cents", "fare", 1, lambda old: f"{float(old) * 100:g}"),
        ("a tenth of the fares in cents", "fare", 10, lambda old: f"{float(old) * 100:g}"),
        ("miles in kilometres", "trip_miles", 1, lambda old: f"{float(old) * 1.609344:g}"),
        ("renamed category", "payment_type", None, lambda old: old.replace("Cr", "cr").lower()),
        ("sensor silent", "trip_miles", 1, lambda old: ""),
        ("one label in five flipped", "big_tipper", 5, {"0": "1", "1": "0"}.__getitem__),
    ],
)
def test_a_fault_changes_its_column_alone(name, column, rows, value, quarters):
    (_, before), (_, span) = quarters[8], quarters[9]
    old = span.copy()
    faulty = faults.FAULTS[name](span, before)
    assert span.equals(old)
    assert faulty.drop(columns=column).equals(span.drop(columns=column))
    changed = faulty[column] != span[column]
    pairs = zip(span[column][changed], faulty[column][changed], strict=True)
    assert all(value(was) == now for was, now in pairs)
    assert changed.sum() == (
        (span[column] == "Credit Card").sum()
        if rows is None
        else pytest.approx(len(span) // rows, rel=0.05)
    )


def test_the_documentation_has_a_row_for_every_fault():
    made_by_command = faults.PAGE.read_text().partition(faults.BEGIN)[2].partition(faults.END)[0]
    rows = [line.split("|")[1].strip() for line in made_by_command.strip().splitlines()]
    assert rows[2:] == [faults.CLEAN, *faults.FAULTS]
