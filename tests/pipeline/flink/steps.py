"""What workers run in the proofs: they import it from the project."""

import time

from components.errors import PipelineStop

WORDS = "Row 7 has no label.\nFix the data at its source."


def stop(number: int) -> int:
    """Raises what must arrive whole."""
    raise PipelineStop(WORDS)


def sleep(number: int) -> int:
    """Keeps a job running."""
    time.sleep(600)
    return number
