"""Charts that need no script: `macros.html.j2` draws them, `style.css` has colours and shapes.

All places are shares of a chart's width and height, in percent: it becomes as wide as there is
room, and its texts and marks keep their size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_TICKS = 6
"""At most so many places are named on an axis from left to right."""


@dataclass(frozen=True)
class Axis:
    """A scale from `low` at the left or bottom to `high`; `ticks` are values and their texts."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def at(self, value: float) -> float:
        """How far along the axis a value is, in percent."""
        return round(100 * float(value - self.low) / (self.high - self.low), 2)


def scale(title: str, values: Any) -> Axis:
    """An axis of numbers, a little longer than from the least to the greatest of `values`."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)] if np.isfinite(known).any() else np.zeros(1)
    low, high = known.min(), known.max()
    if np.isclose(low, high, rtol=1e-9, atol=1e-300):  # a flat line lies in the middle
        beside = abs(low) / 10 or 0.1
        low, high = low - beside, high + beside
    width = high - low
    rough = width / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(times for times in (1, 2, 5, 10) if times * power >= rough * 0.999)
    ticks = np.arange(np.ceil(low / step - 0.01), np.floor(high / step + 0.01) + 1) * step
    spare = 0.02 * width
    return Axis(title, low - spare, high + spare, [(tick, f"{tick + 0.0:.6g}") for tick in ticks])


def places(title: str, names: Sequence[str], downwards: bool = False) -> Axis:
    """An axis of names, 0 for the first; downwards all of them are written."""
    ticks, end = [*enumerate(names)], len(names) - 0.5
    if downwards:
        return Axis(title, end, -0.5, ticks)
    return Axis(title, -0.5, end, ticks[:: -(-len(names) // _TICKS)])


@dataclass(frozen=True)
class Line:
    """Values in the style of a model; one that is not known is None or not a number.

    `low` and `high` are the ends of each value's interval; `said` is what pointing at each shows;
    `drawn` is "line", "dots", or both. A line without a name is one to compare with.
    """

    style: str
    name: str
    x: Sequence[Any]
    y: Sequence[Any]
    low: Sequence[Any] = ()
    high: Sequence[Any] = ()
    said: Sequence[str] = ()
    drawn: str = "line"


@dataclass(frozen=True)
class Chart:
    """Lines on two axes; `marks` are places on the x axis with a word each.

    If it is `sideways`, the y axis has names, and intervals are of x.
    """

    lines: Sequence[Line]
    x: Axis
    y: Axis
    marks: Sequence[tuple[float, str]]
    sideways: bool

    def points(self, line: Line) -> Iterator[dict[str, Any]]:
        """Yields the known points of a line, and in between an empty one for unknown ones."""
        ends = self.x if self.sideways else self.y
        values = [line.x, line.y, line.low, line.high]
        columns = [np.asarray(one if len(one) else line.x, float) for one in values]
        for n, (x, y, low, high) in enumerate(zip(*columns, strict=True)):
            if not np.isfinite([x, y]).all():
                yield {}
                continue
            has = bool(len(line.low)) and np.isfinite([low, high]).all()
            yield {
                "x": self.x.at(x),
                "y": round(100 - self.y.at(y), 2),
                "ends": (ends.at(low), ends.at(high)) if has else None,
                "said": line.said[n] if len(line.said) else "",
            }


def chart(
    lines: Sequence[Line],
    x: str | Axis,
    y: str | Axis,
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """A chart; an axis that is given by its title has a scale on which all is seen."""
    sideways = isinstance(y, Axis)
    ends = [end for line in lines for end in (*line.low, *line.high)]
    across = [value for line in lines for value in line.x] + (ends if sideways else [])
    up = [value for line in lines for value in line.y] + ([] if sideways else ends)
    x_axis = x if isinstance(x, Axis) else scale(x, across)
    y_axis = y if isinstance(y, Axis) else scale(y, up)
    return Chart(lines, x_axis, y_axis, marks, sideways)
