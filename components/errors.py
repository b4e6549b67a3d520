"""The errors whose messages are written for the person who runs the pipeline."""


class PipelineStop(Exception):
    """Stops the run with a message that stands on its own.

    The message says what came, what is allowed and what to do, and where. Runners show it without
    a traceback; every other exception is a fault of the code and is shown with the log's path.
    """


class NothingToDo(PipelineStop):
    """Stops the run, although nothing is wrong."""
