"""Schedules as Kubeflow Pipelines reads them: six fields, the first of them seconds.

It takes five fields too, and reads them as six without the last: `*/30 * * * *` would fire every
30 seconds. So exactly six are allowed here, in the syntax of its parser (robfig/cron 1.2).
"""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from dateutil.rrule import DAILY, rrule, rruleset

from components.errors import PipelineStop

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LEAP_YEAR = 2024


class _Field(NamedTuple):
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("seconds", 0, 59),
    _Field("minutes", 0, 59),
    _Field("hours", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)
_PIECE = re.compile(r"(?P<low>[*?]|\w+)(-(?P<high>\w+))?(/(?P<step>\d+))?")


@dataclass(frozen=True)
class Schedule:
    """A schedule that has been checked.

    Attributes:
      text: The six fields, as they are sent.
      values: What each field allows.
      days_joined: Whether a day has to fit both of its fields (one of them is `*`), not just one.
    """

    text: str
    values: tuple[tuple[int, ...], ...]
    days_joined: bool

    def never_fires(self) -> bool:
        """Whether its days are in none of its months, as in the 30th of February."""
        _, _, _, days, months, _ = self.values
        longest = max(monthrange(_LEAP_YEAR, month)[1] for month in months)
        return self.days_joined and min(days) > longest

    def next_times(self, now: datetime, count: int) -> list[datetime]:
        """The times after `now` (UTC) at which it fires, at most `count`."""
        seconds, minutes, hours, days, months, weekdays = self.values
        common: dict[str, Any] = {
            "freq": DAILY,
            "dtstart": now.replace(hour=0, minute=0, second=0, microsecond=0),
            "bysecond": seconds,
            "byminute": minutes,
            "byhour": hours,
            "bymonth": months,
        }
        from_monday = [(day - 1) % 7 for day in weekdays]
        times = rruleset()
        if self.days_joined:
            times.rrule(rrule(**common, bymonthday=days, byweekday=from_monday))
        else:
            times.rrule(rrule(**common, bymonthday=days))
            times.rrule(rrule(**common, byweekday=from_monday))
        return list(islice(times.xafter(now), count))


def read(text: str) -> Schedule:
    """Checks a schedule.

    Raises:
        PipelineStop: With everything that is wrong about it.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise PipelineStop(_count_problem(text, fields))
    found = [_values(given, field) for given, field in zip(fields, _FIELDS, strict=True)]
    if problems := [one for one in found if isinstance(one, str)]:
        raise PipelineStop(f"The schedule '{text}': {'; '.join(problems)}.")
    values = tuple(tuple(sorted(one)) for one in found if isinstance(one, set))
    schedule = Schedule(" ".join(fields), values, _any(fields[3]) or _any(fields[5]))
    if schedule.never_fires():
        raise PipelineStop(f"The schedule '{text}' never fires: there is no such date.")
    return schedule


def _count_problem(text: str, fields: list[str]) -> str:
    names = ", ".join(field.name for field in _FIELDS)
    problem = f"The schedule '{text}' has {len(fields)} fields, and needs six: {names}"
    if len(fields) == 5:
        return (
            f"{problem}. Kubeflow Pipelines would read the first of five as seconds: write "
            f"'0 {' '.join(fields)}'."
        )
    return f"{problem}, e.g. '0 30 4 * * *' for 4:30 every day."


def _any(text: str) -> bool:
    return any(piece.startswith(("*", "?")) for piece in text.split(","))


def _values(text: str, field: _Field) -> set[int] | str:
    """What a field allows, or what is wrong with it."""
    found: set[int] = set()
    for piece in text.split(","):
        try:
            found.update(_piece(piece, field))
        except ValueError as error:
            return f"{field.name} '{piece}': {error}"
    return found


def _piece(text: str, field: _Field) -> range:
    match = _PIECE.fullmatch(text)
    if not match:
        raise ValueError("neither *, a value, a range 1-5 nor a step */2")
    low, high, step = match["low"], match["high"], match["step"]
    if low in "*?":
        if high:
            raise ValueError(f"a range can't begin with {low}")
        first, last = field.lowest, field.highest
    else:
        first = _number(low, field)
        last = _number(high, field) if high else field.highest if step else first
    if first > last:
        raise ValueError(f"{first} is above {last}")
    if step and not int(step):
        raise ValueError("a step is at least 1")
    return range(first, last + 1, int(step or 1))


def _number(text: str, field: _Field) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.lowest
    if not text.isdecimal() or not field.lowest <= int(text) <= field.highest:
        names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise ValueError(f"it may be {field.lowest} to {field.highest}{names}")
    return int(text)
