"""The steps of a run, read from the rows that the API has for it.

The rows are Argo's nodes. A step `trainer` has a row `trainer-driver`, then `trainer`, a wrapper,
and in it `executor` (or `executor(0)`, `executor(1)` for attempts), which all steps call the same.
Others have no name: entries of KFP's cache. No row says which row it belongs to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Outcome = Literal["started", "done", "cached", "skipped", "failed"]

_AT_ONCE_SECONDS = 2.0
"""A cached step's wrapper is through in the moment it begins; a pod takes longer than that."""
_FIRST_YEAR = datetime(1971, 1, 1, tzinfo=UTC)
"""Times that aren't known yet are sent as year 1 or 1970."""


@dataclass(frozen=True)
class Step:
    """A step, as far as it has come.

    Attributes:
      outcome: `skipped` if a condition left it out; a cached step was started, but not run.
      seconds: From the start of its driver to its end; None while it runs.
      pod: The pod's name, if the API tells it (2.17 doesn't).
    """

    outcome: Outcome
    seconds: float | None = None
    pod: str | None = None


def read(rows: Iterable[Any], names: Sequence[str]) -> dict[str, Step]:
    """The steps that have begun, in this order.

    Args:
        rows: The run's `task_details`.
        names: The package's task ids.
    """
    known = [row for row in rows if row.display_name]
    by_name = {row.display_name: row for row in sorted(known, key=_start)}
    idle = [row for row in known if row.display_name == "executor" and row.state == "SKIPPED"]
    both = {name: (by_name.get(f"{name}-driver"), by_name.get(name)) for name in names}
    begun = [(name, *pair) for name, pair in both.items() if any(pair)]
    found = {}
    for name, driver, wrapper in sorted(begun, key=lambda one: _start(one[1] or one[2])):
        if outcome := _outcome(driver, wrapper, idle):
            last = wrapper if wrapper and wrapper.state else driver
            seconds = None if outcome == "started" else _seconds(driver or wrapper, last)
            found[name] = Step(outcome, seconds, getattr(last, "pod_name", None))
    return found


def _outcome(driver: Any, wrapper: Any, idle: Sequence[Any]) -> Outcome | None:
    """None: not begun. A wrapper without a state is one that Argo left out."""
    if "FAILED" in (driver and driver.state, wrapper and wrapper.state):
        return "failed"
    if wrapper and wrapper.state == "SUCCEEDED":
        return "cached" if _was_cached(wrapper, idle) else "done"
    if wrapper and wrapper.state == "SKIPPED":
        return "skipped"
    if any(row and row.state in ("PENDING", "RUNNING", "SUCCEEDED") for row in (driver, wrapper)):
        return "started"
    return None


def _was_cached(wrapper: Any, idle: Sequence[Any]) -> bool:
    return _seconds(wrapper, wrapper) <= _AT_ONCE_SECONDS and any(
        abs((_start(row) - _start(wrapper)).total_seconds()) <= _AT_ONCE_SECONDS for row in idle
    )


def _start(row: Any) -> datetime:
    return row.start_time or _FIRST_YEAR


def _seconds(first: Any, last: Any) -> float:
    """From the first row's start to the last row's end; 0 if a time is missing."""
    start, end = _start(first), last.end_time or _FIRST_YEAR
    return max(0.0, (end - start).total_seconds()) if start > _FIRST_YEAR else 0.0
