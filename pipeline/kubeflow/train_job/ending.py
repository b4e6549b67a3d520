"""How the step learns that it is to end: by a signal, or as KFP's launcher is gone."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from types import FrameType

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """SIGTERM, SIGINT and the end of the parent process raise KeyboardInterrupt, once.

    KFP's launcher passes no signal on. So the kernel sends SIGTERM when it ends. (Strictly: when
    the thread ends that started this process; Go keeps its threads.)
    """
    parent = os.getppid()
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    _ask_for_sigterm_after_parent(True)
    try:
        if os.getppid() != parent:  # it ended before the kernel knew
            raise KeyboardInterrupt
        yield
    finally:
        _ask_for_sigterm_after_parent(False)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # what has to be tidied up is tidied up
    raise KeyboardInterrupt(
        f"ended by {signal.Signals(number).name}; the next attempt goes on from the last checkpoint"
    )


def _ask_for_sigterm_after_parent(wanted: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM if wanted else 0)
