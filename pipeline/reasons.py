"""Why a component failed, in a sentence."""

import errno

from components.errors import PipelineStop


def reason(error: BaseException | None) -> str:
    """Why a component failed, for a person: a message of ours, or the last words of another."""
    while error is not None:
        if isinstance(error, PipelineStop):
            return str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"The disk of {error.filename or 'the workspace'} is full. Free some: make gc"
        if error.__cause__ is None:
            break
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(lines[-1].split())}"
