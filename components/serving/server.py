"""`python -m pipeline serve`: the online server, as KServe's Python model server (book pattern 16).

It serves one model of the registry by REST (V1, V2) and gRPC (V2): the champion, any version and
any label. It follows the labels, and ends on SIGTERM or SIGINT, when what came is answered.
"""

import contextlib
import sys
from collections.abc import Iterator

from components.inference.prediction_log import PredictionLog
from components.serving.settings import Serving


def main(folder: str, wanted: str | None, settings: Serving, log: PredictionLog | None) -> int:
    """Serves until it is told to end; 0 comes back.

    Args:
        folder: `registry/<model>`.
        wanted: The version or label for callers that name none; None is the champion.
        settings: Where to listen, and the bounds.
        log: Where predictions are logged; closed at the end.

    Raises:
        PipelineStop: If there is no such version, it cannot be loaded, or a port is taken.
    """
    with _own_arguments():
        from components.serving import running
    try:
        return running.run(folder, wanted, settings, log)
    finally:
        if log is not None:
            log.close()


@contextlib.contextmanager
def _own_arguments() -> Iterator[None]:
    """Hides the command line: KServe parses it on import, and takes `--config` for its own."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments
