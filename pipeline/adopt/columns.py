"""What becomes of each column: features, or left out with the reason."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.adopt.profiling import Column
from pipeline.adopt.scores import Score

LEAK = 0.96
"""A column that alone reaches more than this, two standard errors taken off, is a leak."""
LEAK_ROWS = 50
"""With fewer rows nothing is called a leak: chance does as well."""
NEARLY_EMPTY = 0.01
ID_FRACTION = 0.95
MANY_WORDS = 4.0
LONG_TEXT = 60.0
ROWS_A_CATEGORY = 3
ONE_HOT = 32
VOCABULARY = 1_000
CODE_VALUES = 1_000
GAIN_OF_BUCKETS = 0.01
"""Of the label's variance: what buckets must explain more than a straight line does."""
NOTEWORTHY_GAPS = 0.05

_ID = re.compile(r"(^|[_\W])(id|uuid|guid|key|index|number|nr|no|unnamed: 0)$", re.IGNORECASE)
_TIME = re.compile(r"(^|[_\W])(timestamp|datetime|date|time|epoch|created|updated|at|ts)$", re.I)
_CODE = re.compile(
    r"(^|[_\W])(id|code|zip|zipcode|postcode|area|tract|region|district|type|class|category|group|"
    r"cluster|segment|month|weekday|day|dayofweek|hour|status|state|kind|flag)s?$",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

OVERRULE = {
    "leakage": "known before the label? then --keep",
    "id": "--keep; or --key if it identifies the row",
    "time": "--time splits by it",
    "constant": "nothing to learn from it",
    "duplicate": "--keep this one, --exclude the other",
    "sparse": "--keep",
    "text": "--keep hashes each whole text; better make features of it before",
    "categories": "--keep hashes them; better group them before",
    "choice": "leave --exclude out",
}
"""By reason: how a person overrules it."""


@dataclass(frozen=True)
class Decision:
    """What becomes of one column."""

    column: Column
    why: str
    excluded: str | None = None
    """The reason in one word, as in `features.exclude`; None if it feeds features."""
    features: tuple[dict[str, Any], ...] = ()
    """Settings of its features, without their names: the first is the main one."""
    score: Score | None = None


def left_out(column: Column, is_key: bool = False) -> Decision | None:
    """The decision to leave a column out for what it is, whatever the label."""
    for reason, why in (_empty(column), _time(column), _id(column, is_key), _text(column)):
        if reason:
            return Decision(column, why, reason)
    return None


_Reason = tuple[str | None, str]
_NONE: _Reason = None, ""


def _empty(column: Column) -> _Reason:
    if not column.present:
        return "sparse", "no row has a value"
    if column.missing_fraction > 1 - NEARLY_EMPTY:
        return "sparse", f"{column.present:,} of {column.rows:,} rows have a value"
    if column.distinct == 1 and not column.missing:
        return "constant", f"always '{shortened(column.frequent[0][0])}'"
    return _NONE


def _time(column: Column) -> _Reason:
    if column.kind == "BYTES":
        why = "dates or times: the model must not learn them by heart"
        return ("time", why) if column.is_date else _NONE
    for unit, size in (("seconds", 1), ("milliseconds", 1_000)):
        is_epoch = 3e8 * size < column.low <= column.high < 5e9 * size
        if column.whole and is_epoch and (column.rises or _named(_TIME, column.name)):
            return "time", f"{unit} since 1970, by size and {'order' if column.rises else 'name'}"
    return _NONE


def _id(column: Column, is_key: bool) -> _Reason:
    if is_key:
        return "id", "named with --key"
    unique = column.distinct >= ID_FRACTION * column.present and column.present >= 20
    if not unique or column.kind == "FLOAT":
        return _NONE
    share = f"different in {column.distinct / column.present:.0%} of the rows"
    if column.kind == "BYTES":
        return _NONE if _is_prose(column) else ("id", share)
    counts_up = column.rises or column.high - column.low < 1.5 * column.rows
    if counts_up and column.distinct == column.present:
        return "id", "counts the rows" if not column.missing else share
    return ("id", f"{share}, and named like one") if _named(_ID, column.name) else _NONE


def _text(column: Column) -> _Reason:
    if column.kind == "BYTES" and _is_prose(column) and column.distinct > ONE_HOT:
        return "text", f"free text: {column.words:.0f} words, {column.characters:.0f} characters"
    return _NONE


def _is_prose(column: Column) -> bool:
    return column.words > MANY_WORDS or column.characters > LONG_TEXT


def is_leak(score: Score | None, rows: int) -> bool:
    """Whether a column alone nearly gives the label away."""
    return score is not None and rows >= LEAK_ROWS and score.certain > LEAK


def leak(column: Column, score: Score) -> Decision:
    """The decision to leave a leak out."""
    why = f"alone reaches {score.measure} {score.value:.3f} on held-out rows (limit {LEAK})"
    return Decision(column, why, "leakage", score=score)


def kept(column: Column, score: Score | None, forced: bool = False) -> Decision:
    """The decision on a column that is neither an id nor a leak, and so on.

    Args:
      column: its profile.
      score: what it alone tells of the label.
      forced: a person wants it (--keep), however many categories it has.
    """
    if column.kind == "BYTES" or (column.whole and _is_code(column)):
        decision = _category(column, forced)
    else:
        decision = _amount(column, score)
    return replace(decision, score=score)


def _is_code(column: Column) -> bool:
    """Whether whole numbers name things rather than measure them."""
    if (column.kind == "FLOAT" and not column.missing) or column.distinct > CODE_VALUES:
        return False  # whole numbers with gaps often come as 3.0
    if _named(_CODE, column.name):
        return column.distinct > 2
    digits = {len(str(int(abs(end)))) for end in (column.low, column.high)}
    return len(digits) == 1 and digits.pop() >= 5 and column.distinct * 20 < column.rows


def _category(column: Column, forced: bool) -> Decision:
    rows_each = column.present / max(1, column.distinct)
    if rows_each < ROWS_A_CATEGORY and column.distinct > ONE_HOT and not forced:
        why = f"{column.distinct:,} categories, {rows_each:.1f} rows each: too many to learn"
        return Decision(column, why, "categories")
    settings: dict[str, Any] = {"kind": "vocabulary"}
    why = f"{column.distinct:,} categories"
    if column.kind != "BYTES":
        why += ": codes by name or digits, not amounts"
    if column.distinct > VOCABULARY:
        settings = {"kind": "hashed", "buckets": min(20_000, 2 * column.distinct)}
        why += ", too many to list"
    elif column.distinct > ONE_HOT:
        settings["min_count"] = max(2, round(column.rows / 10_000))
        why += "; rare ones share an id"
    if column.distinct > ONE_HOT:
        settings["embed"] = embedding_width(column.distinct)
    return Decision(column, why, features=(settings | {"missing": "own"},))


def embedding_width(categories: int) -> int:
    """Twice the fourth root of the number of categories, at least 4 (book pattern 2's rule)."""
    return max(4, round(2 * categories**0.25))


def _amount(column: Column, score: Score | None) -> Decision:
    number: dict[str, Any] = {"kind": "numeric", "missing": "mean"}
    why = "0 and 1" if (column.low, column.high, column.distinct) == (0, 1, 2) else "number"
    gain = score.by_bins - max(0.0, score.by_line) if score and column.rows >= 1_000 else 0.0
    reasons = []
    if gain > GAIN_OF_BUCKETS and column.distinct > 10:
        reasons.append(f"buckets explain {gain:.0%} more than a line")
    if column.missing_fraction > NOTEWORTHY_GAPS:
        reasons.append(f"{column.missing_fraction:.0%} missing, which may tell something")
    if not reasons:
        return Decision(column, why, features=(number,))
    count = int(np.clip(min(column.distinct, column.present // 50), 2, 20))
    ranges = {"kind": "bucketized", "buckets": count, "missing": "own"}
    return Decision(column, "; ".join([why, *reasons]), features=(number, ranges))


def _named(pattern: re.Pattern[str], name: str) -> bool:
    return bool(pattern.search(_CAMEL.sub("_", name.strip())))


def shortened(value: object, length: int = 24) -> str:
    """A value on one line, cut where it is long."""
    text = " ".join(str(value)[: 4 * length].split())
    return text if len(text) <= length else text[: length - 3] + "..."
