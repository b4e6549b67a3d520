"""SIGTERM and SIGINT as a wish that is granted between two stretches of steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator

START_AGAIN = 75
"""The exit code of an interrupted training (EX_TEMPFAIL of sysexits.h): start the same again."""


class Interrupted(Exception):
    """The training was asked to stop; its checkpoint is written."""


@contextlib.contextmanager
def noted() -> Iterator[list[int]]:
    """Collects the signals that come; a second one raises KeyboardInterrupt at once.

    Signals can be caught in the main thread only; elsewhere nothing is collected.
    """
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
