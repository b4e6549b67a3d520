"""Known faults, put into a span of taxi rows: what the checks have to find."""

import random
from collections.abc import Callable
from typing import NamedTuple

from pipeline.continued_evaluation.quarters import Row

LABEL = "big_tipper"


class Span(NamedTuple):
    """A span's rows, and those of the span before it."""

    header: Row
    rows: list[Row]
    before: list[Row]


Fault = Callable[[Span, random.Random], list[Row]]
"""Makes a span's faulty rows; the span stays as it is."""


def fare_in_cents(span: Span, chance: random.Random) -> list[Row]:
    """`fare` in cents instead of dollars."""
    return _changed(span, "fare", _to_cents)


def half_the_fares_in_cents(span: Span, chance: random.Random) -> list[Row]:
    """`fare` in cents in half of the rows: one of two sources has changed."""
    return _changed(span, "fare", _to_cents, _some(span, chance, 2))


def a_tenth_of_the_fares_in_cents(span: Span, chance: random.Random) -> list[Row]:
    """`fare` in cents in one row of ten."""
    return _changed(span, "fare", _to_cents, _some(span, chance, 10))


def miles_in_kilometres(span: Span, chance: random.Random) -> list[Row]:
    """`trip_miles` in kilometres instead of miles."""
    return _changed(span, "trip_miles", lambda miles: f"{float(miles) * 1.609344:g}")


def _to_cents(dollars: str) -> str:
    return f"{float(dollars) * 100:g}"


def renamed_category(span: Span, chance: random.Random) -> list[Row]:
    """`Credit Card` is spelt `credit card` in `payment_type`."""
    return _changed(span, "payment_type", lambda v: "credit card" if v == "Credit Card" else v)


def sensor_at_zero(span: Span, chance: random.Random) -> list[Row]:
    """`trip_miles` is 0 in all rows."""
    return _changed(span, "trip_miles", lambda value: "0.0")


def sensor_silent(span: Span, chance: random.Random) -> list[Row]:
    """`trip_miles` is empty in all rows."""
    return _changed(span, "trip_miles", lambda value: "")


def labels_of_the_next_row(span: Span, chance: random.Random) -> list[Row]:
    """Each row has the label of the row after it: a join that is off by one."""
    labels = _values(span, LABEL)
    return _replaced(span, LABEL, [*labels[1:], *labels[:1]])


def flipped_labels(span: Span, chance: random.Random) -> list[Row]:
    """One label in five is the other one."""
    return _changed(span, LABEL, _flip, _some(span, chance, 5))


def few_flipped_labels(span: Span, chance: random.Random) -> list[Row]:
    """One label in twenty is the other one."""
    return _changed(span, LABEL, _flip, _some(span, chance, 20))


def _flip(label: str) -> str:
    return "0" if label == "1" else "1"


def shuffled_labels(span: Span, chance: random.Random) -> list[Row]:
    """The labels in a random order."""
    labels = _values(span, LABEL)
    chance.shuffle(labels)
    return _replaced(span, LABEL, labels)


def span_twice(span: Span, chance: random.Random) -> list[Row]:
    """Every row twice: the span's file was delivered two times."""
    return span.rows + span.rows


def span_before_again(span: Span, chance: random.Random) -> list[Row]:
    """The rows of the span before under the new number: an old file was delivered again."""
    return span.before


FAULTS: dict[str, Fault] = {
    "fare in cents": fare_in_cents,
    "half the fares in cents": half_the_fares_in_cents,
    "a tenth of the fares in cents": a_tenth_of_the_fares_in_cents,
    "miles in kilometres": miles_in_kilometres,
    "renamed category": renamed_category,
    "sensor at zero": sensor_at_zero,
    "sensor silent": sensor_silent,
    "labels of the next row": labels_of_the_next_row,
    "one label in five flipped": flipped_labels,
    "one label in twenty flipped": few_flipped_labels,
    "shuffled labels": shuffled_labels,
    "span twice": span_twice,
    "span before again": span_before_again,
}


def _some(span: Span, chance: random.Random, every: int) -> set[int]:
    """One row in so many, drawn at random: their places."""
    return set(chance.sample(range(len(span.rows)), len(span.rows) // every))


def _values(span: Span, column: str) -> list[str]:
    place = span.header.index(column)
    return [row[place] for row in span.rows]


def _changed(
    span: Span, column: str, change: Callable[[str], str], chosen: set[int] | None = None
) -> list[Row]:
    """The rows with changed values in a column; in the chosen rows only, or in all."""
    values = enumerate(_values(span, column))
    new = [change(value) if chosen is None or n in chosen else value for n, value in values]
    return _replaced(span, column, new)


def _replaced(span: Span, column: str, values: list[str]) -> list[Row]:
    place = span.header.index(column)
    return [
        [*row[:place], value, *row[place + 1 :]]
        for row, value in zip(span.rows, values, strict=True)
    ]
