"""The tests have settings of their own, `tests/taxi`, and hold whatever a fork does to `configs/`.

Before anything of the project is imported, and for the processes that tests start here. Those that
run in a copy of the project have its settings instead: `tests.small.environment_of_a_copy`.
"""

import os
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
os.environ["PIPELINE_CONFIGS"] = str(HERE / "taxi")

_NEED_PARTS = {
    "benchmarks/test_faults.py": ["components/continued_evaluation"],
    "benchmarks/test_replay.py": ["components/continued_evaluation"],
    "end_to_end/test_adopt.py": ["pipeline/adopt"],
    "end_to_end/test_adopted.py": [
        "pipeline/adopt",
        "components/serving",
        "components/batch_prediction",
    ],
    "end_to_end/test_continued_evaluation.py": ["components/continued_evaluation"],
    "end_to_end/test_distributed.py": ["components/multi_worker"],
    "end_to_end/test_hostile_columns.py": [
        "components/serving",
        "components/batch_prediction",
        "components/continued_evaluation",
    ],
    "end_to_end/test_killed_evaluation.py": ["components/continued_evaluation"],
    "end_to_end/test_late_labels.py": [
        "components/continued_evaluation",
        "components/batch_prediction",
    ],
    "components/serving/test_parity.py": ["components/serving", "components/batch_prediction"],
}
"""Tests of the whole that use optional parts: where one of these is gone, they are left out."""

collect_ignore = [
    str(HERE / test)
    for test, parts in _NEED_PARTS.items()
    if not all((HERE.parent / part / "part.py").is_file() for part in parts)
]

_LONGEST = ("pipeline/flink/", "end_to_end/lived/", "components/multi_worker/", "pipeline/")
"""They come first: else the last worker is at them when the others have nothing left to do."""
_SHARED = "/lived/"
"""A folder whose files go to one worker: they share what it has made for them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest first."""

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(HERE).as_posix()
        return next((n for n, name in enumerate(_LONGEST) if path.startswith(name)), len(_LONGEST))

    items.sort(key=rank)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives each worker whole files, or folders."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder, shared, _ = nodeid.partition(_SHARED)
            return folder + shared if shared else super()._split_scope(nodeid)

    return Scheduling(config, log)
