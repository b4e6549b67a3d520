"""Parts of dates, against Python's calendar."""

import datetime
from typing import Any

import pytest
import tensorflow as tf

from components.features.dates import part_ids
from components.features.table import DATE_PARTS, Date


def parts(values: list[Any], form: str) -> list[list[int] | None]:
    """Month, weekday and hour of each, from 0 on; None where there is no date."""
    column = tf.constant(values, tf.string if isinstance(values[0], str) else tf.int64)
    made = []
    for part in DATE_PARTS:
        feature = Date.model_validate(
            {"kind": "date", "part": part, "format": form, "missing": "own"}
        )
        missing, ids = tf.function(part_ids, reduce_retracing=True)(column, feature)
        made.append(ids.numpy())
    return [
        None if gone else [int(ids[row]) for ids in made]
        for row, gone in enumerate(missing.numpy())
    ]


def test_parts_are_those_of_the_calendar() -> None:
    start, days = datetime.datetime(1970, 1, 1, 23, 59, 30), range(0, 36_500, 13)
    moments = [start + datetime.timedelta(days=n, hours=7 * n) for n in days]
    expected = [[m.month - 1, m.weekday(), m.hour] for m in moments]
    seconds = [int(m.replace(tzinfo=datetime.UTC).timestamp()) for m in moments]
    assert parts(seconds, "seconds") == expected
    assert parts([1000 * s + 7 for s in seconds], "milliseconds") == expected
    assert parts([m.isoformat(" ") for m in moments], "ymd") == expected
    assert parts([f"{m:%Y/%m/%dT%H:%M:%SZ}" for m in moments], "ymd") == expected
    assert parts([f"{m:%d %B %Y %H:%M}" for m in moments], "dmy") == expected
    assert parts([f"{m.month}/{m.day}/{m:%Y %I:%M %p}" for m in moments], "mdy") == expected
    assert [row[:2] for row in parts([int(f"{m:%Y%m%d}") for m in moments], "ymd") if row] == [
        row[:2] for row in expected
    ]


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        ("29-Feb-24", "dmy", [1, 3, 0]),
        ("Jan 31, 1999", "mdy", [0, 6, 0]),
        ("31.01.2024", "ymd", None),
        ("2024-13-01", "ymd", None),
        ("", "ymd", None),
        (-(1 << 63), "seconds", None),
    ],
)
def test_names_of_months_and_what_is_no_date(value: Any, form: str, expected: Any) -> None:
    assert parts([value], form) == [expected]
