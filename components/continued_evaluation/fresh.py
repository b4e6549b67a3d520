"""The error that is none: there is no fresh span yet."""

from components.errors import PipelineStop


class NothingFresh(PipelineStop):
    """The champion was trained on the span itself."""
