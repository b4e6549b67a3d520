"""Watching a group of processes: how each ended is looked at once, and decides what is said."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from components.trainer import processes


class _Ending:
    """A worker of whom each look sees the next of some exit codes, and then always the last."""

    def __init__(self, *codes: int | None):
        self.number, self.told, self.heard = 0, {"replicas": 2}, time.monotonic()
        self._codes: Iterator[int | None] = iter(codes)
        self._last = codes[-1]

    @property
    def code(self) -> int | None:
        return next(self._codes, self._last)

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def _watched(*workers: Any) -> int:
    return processes.run_group(list(workers), [])


@pytest.mark.parametrize("looks", range(6))
def test_a_success_between_two_looks_is_one(looks: int) -> None:
    assert _watched(_Ending(0), _Ending(*[None] * looks, 0)) == 2


@pytest.mark.parametrize("looks", range(6))
def test_a_kill_between_two_looks_is_one(looks: int) -> None:
    with pytest.raises(processes.Died):
        _watched(_Ending(0), _Ending(*[None] * looks, -9))
