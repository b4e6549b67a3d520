"""A process that trains for another one: one of a group, or where TFX cannot be (TPU).

`python -m components.trainer.core.worker PARENT` reads the job as JSON from standard input, and its
place in a group from TF_CONFIG. On standard output it writes a JSON object a line: `progress`
with its `level`, and at the end `replicas`, `interrupted` or `failure`. Progress of level DEBUG is
a sign of life and no more. Everything else of the process goes to standard error.
"""

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from components.trainer.core.interruption import START_AGAIN

UNUSABLE = 2
"""Exit code when a person has something to put right: starting again would end the same."""
LOST = 69
"""Exit code when another process of the group is gone (EX_UNAVAILABLE of sysexits.h)."""

_PR_SET_PDEATHSIG = 1

Tell = Callable[[dict[str, Any]], None]


def main(parent: int) -> int:
    """Trains; the exit code comes back: 0, or one of those above, or START_AGAIN."""
    _die_with(parent)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tell = _teller()
    text = sys.stdin.read()

    import tensorflow as tf

    from components.trainer.core.interruption import Interrupted
    from components.trainer.core.job import FAILURES, Job, train

    try:
        done = train(Job(**json.loads(text)), hand_over=True)
    except (Interrupted, KeyboardInterrupt) as error:
        tell({"interrupted": str(error) or "interrupted before the first step"})
        return START_AGAIN
    except FAILURES as error:
        tell({"failure": str(error)})
        return UNUSABLE
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ):
        logging.exception("another worker is gone")
        return LOST
    tell({"replicas": done.progress["replicas"]})
    return 0


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def _teller() -> Tell:
    """Keeps standard output for what is told, and sends lines of progress there."""
    lines = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        lines.write(json.dumps(message) + "\n")

    logging.basicConfig(format="%(levelname)s %(message)s")
    progress = logging.getLogger("progress")
    progress.setLevel(logging.DEBUG)
    progress.propagate = False
    progress.addHandler(_Telling(tell))
    return tell


class _Telling(logging.Handler):
    def __init__(self, tell: Tell):
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell({"progress": record.getMessage(), "level": record.levelno})


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
