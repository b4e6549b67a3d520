"""The rows that the API server has for a run's steps: one for each node of Argo's workflow.

As `backend/src/apiserver/server/api_converter.go` makes them: no row has its own pod's or node's
name, times that aren't known are year 1, a state that isn't known is left out.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 11, 23, 9, 29, 39, tzinfo=UTC)
NEVER = "0001-01-01T00:00:00Z"
_STATES = {
    "driver": ("RUNNING", None, None),
    "running": ("SUCCEEDED", "RUNNING", "RUNNING"),
    "done": ("SUCCEEDED", "SUCCEEDED", "SUCCEEDED"),
    "cached": ("SUCCEEDED", "SUCCEEDED", "SKIPPED"),
    "skipped": ("SUCCEEDED", "SKIPPED", None),
    "failed": ("SUCCEEDED", "FAILED", "FAILED"),
    "driver failed": ("FAILED", "", None),
    "left out": ("", "", None),
}
"""What has happened to a step: its driver's state, the wrapper's, the executor's."""


def rows(steps: dict[str, str]) -> list[dict[str, Any]]:
    """All rows of a run whose steps have come so far; each began 60 seconds after the last."""
    found = [row("root-driver", "SUCCEEDED", 0, 9), row("root", "RUNNING", 10)]
    for number, (step, progress) in enumerate(steps.items()):
        start = 60 * number
        driver, wrapper, executor = _STATES[progress]
        took = 1 if progress in ("cached", "skipped") else 42
        found.append(row(f"{step}-driver", driver, start, start + 8))
        if wrapper is not None:
            found.append(row(step, wrapper, start + 10, start + 10 + took))
        if executor is not None:
            found.append(row("executor", executor, start + 10, start + 10 + took))
        if progress == "done":
            found.append(_cache_entry())
    return sorted(found, key=lambda one: str(hash(one.get("display_name"))))


def row(name: str, state: str, start: float, end: float = 0) -> dict[str, Any]:
    """One node."""
    ended = state in ("SUCCEEDED", "FAILED", "SKIPPED")
    begun = state != ""
    found = {
        "run_id": "run",
        "task_id": f"row-of-{name}-{start}",
        "display_name": name,
        "create_time": _time(0),
        "start_time": _time(start) if begun else NEVER,
        "end_time": _time(end) if ended else NEVER,
    }
    return found | ({"state": state} if state else {})


def _cache_entry() -> dict[str, Any]:
    """What the launcher files for later runs to find: a row without a name or a state."""
    return {
        "run_id": "run",
        "task_id": "entry",
        "create_time": _time(50),
        "start_time": _time(50),
        "end_time": _time(51),
        "execution_id": "17",
    }


def _time(seconds: float) -> str:
    return f"{START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
