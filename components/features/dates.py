"""Parts of dates and times as categories: what recurs, while the time itself only grows.

Transform reads the raw column with these operations, so that training and serving read it alike.
"""

import tensorflow as tf

from components.features.missing import MISSING
from components.features.table import DATE_PARTS, Date

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_TIME = r"(?:[T ]+([0-9]{1,2}):[0-9]{2}(?:[:.][0-9.]*)?\s*([AaPp]?)[Mm]?.*)?\s*"
_NAMED = r"([0-9]{1,2}|[A-Za-z]{3})[A-Za-z]*"
_YEAR = r"([0-9]{4}|[0-9]{2})"
_DATES = {
    "ymd": (rf"\s*([0-9]{{4}})[-/. ]?{_NAMED}[-/. ]?([0-9]{{1,2}}){_TIME}", ("y", "m", "d")),
    "dmy": (rf"\s*([0-9]{{1,2}})[-/., ]+{_NAMED}[-/., ]+{_YEAR}{_TIME}", ("d", "m", "y")),
    "mdy": (rf"\s*{_NAMED}[-/., ]+([0-9]{{1,2}})[-/., ]+{_YEAR}{_TIME}", ("m", "d", "y")),
}
"""By format: a pattern of a whole text, and what its first three groups are."""
_EPOCH_DAYS = 719_468
"""From the first of March of the year 0 to 1970."""


def part_ids(column: tf.Tensor, feature: Date) -> tuple[tf.Tensor, tf.Tensor]:
    """A part of each date.

    Args:
      column: [batch], text or numbers, with `missing.MISSING` in its gaps.
      feature: which part, and how the dates are written.

    Returns:
      bool [batch], whether there is no date that can be read; int64 [batch], from 0 on.
    """
    if feature.format in _DATES:
        text = column if column.dtype == tf.string else tf.strings.as_string(column)
        known, year, month, day, hour = _of_text(text, feature.format)
    else:
        known, year, month, day, hour = _of_seconds(column, feature.format == "milliseconds")
    weekday = (_days(year, month, day) + 3) % 7  # 1970 began on a Thursday
    part = {"month": month - 1, "weekday": weekday, "hour": hour}[feature.part]
    return ~known, tf.clip_by_value(part, 0, DATE_PARTS[feature.part] - 1)


def _of_text(text: tf.Tensor, form: str) -> tuple[tf.Tensor, ...]:
    """Whether it is a date, and its year, month, day and hour."""
    pattern, order = _DATES[form]
    known = tf.strings.regex_full_match(text, pattern)
    text = tf.where(known, text, "2000-01-01" if form == "ymd" else "01-01-2000")
    groups = [tf.strings.regex_replace(text, f"^{pattern}$", rf"\{i}") for i in range(1, 6)]
    dates = dict(zip(order, groups, strict=False))
    year, day = (tf.strings.to_number(dates[name], tf.int64) for name in "yd")
    year += 1900 * _one_if(year < 100) + 100 * _one_if(year < 69)
    named = tf.equal(tf.strings.lower(dates["m"])[:, None], tf.constant(_MONTHS)[None, :])
    is_named = tf.reduce_any(named, axis=1)
    number = tf.where(tf.strings.regex_full_match(dates["m"], "[0-9]+"), dates["m"], "0")
    month = tf.where(is_named, tf.argmax(named, 1) + 1, tf.strings.to_number(number, tf.int64))
    hour = tf.strings.to_number(tf.where(tf.equal(groups[3], ""), "0", groups[3]), tf.int64)
    half = tf.strings.lower(groups[4])
    hour = tf.where(tf.equal(half, ""), hour, hour % 12 + 12 * _one_if(tf.equal(half, "p")))
    known &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (hour < 24)
    return known, year, month, day, hour


def _of_seconds(column: tf.Tensor, are_milliseconds: bool) -> tuple[tf.Tensor, ...]:
    """As `_of_text`, of numbers since 1970 (Hinnant, days from civil, and back)."""
    is_float = column.dtype == tf.float32
    missing = tf.math.is_nan(column) if is_float else tf.equal(column, MISSING["INT"])
    seconds = tf.cast(tf.where(missing, tf.zeros_like(column), column), tf.int64)
    seconds = seconds // 1000 if are_milliseconds else seconds
    days = seconds // 86_400 + _EPOCH_DAYS
    era, of_era = days // 146_097, days % 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = (month + 2) % 12 + 1
    year += 400 * era + _one_if(month <= 2)
    return ~missing, year, month, day, seconds % 86_400 // 3_600


def _days(year: tf.Tensor, month: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """The days since 1970."""
    year -= _one_if(month <= 2)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + of_year - _EPOCH_DAYS


def _one_if(holds: tf.Tensor) -> tf.Tensor:
    return tf.cast(holds, tf.int64)
