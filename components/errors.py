"""The errors whose messages are written for the person who runs the pipeline."""

import difflib
from collections.abc import Iterable


class PipelineStop(Exception):
    """Stops the run with a message that stands on its own.

    The message says what came, what is allowed and what to do, and where. Runners show it without
    a traceback; every other exception is a fault of the code and is shown with the log's path.
    """


class NothingToDo(PipelineStop):
    """Stops the run, although nothing is wrong."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A hint with the known word that is most like one: "; did you mean 'x'?", or nothing."""
    words = {one.strip().casefold(): one for one in known}
    close = difflib.get_close_matches(word.strip().casefold(), words, n=1, cutoff=cutoff)
    return f"; did you mean '{words[close[0]]}'?" if close else ""
