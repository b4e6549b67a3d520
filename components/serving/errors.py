"""How callers are told what they cannot have, and what of that is logged.

Each is one of KServe's errors, so that its handlers give the right status: `str` is for REST,
`reason` for gRPC. What is wrong with a request itself is KServe's own `InvalidInput` (400).
"""

import logging

from grpc_interceptor.exceptions import Internal
from kserve.errors import InvalidInput, ModelNotFound, ServerNotReady


class UnknownVersion(ModelNotFound):
    """404, NOT_FOUND: no such model, version or label."""

    def __init__(self, reason: str):
        """Takes what to tell."""
        self.reason = reason


class Unavailable(ServerNotReady):
    """503, UNAVAILABLE: not now; the same request may be answered later."""

    def __init__(self, reason: str):
        """Takes what to tell."""
        super().__init__()
        self.error_msg = self.reason = reason


class NotOffered(NotImplementedError):
    """501, UNIMPLEMENTED: a part of the protocol that this server does not have."""

    def __init__(self, reason: str):
        """Takes what to tell."""
        super().__init__(reason)
        self.reason = reason


class ModelFailed(Internal):
    """500, INTERNAL: the model raised an error for rows that looked right."""

    def __init__(self, name: str, version: int):
        """Takes the model's name and the version."""
        super().__init__(f"version {version} of '{name}' failed; the server's log says why")


_CALLERS = (InvalidInput, UnknownVersion, Unavailable, NotImplementedError)


def keep_from_log(record: logging.LogRecord) -> bool:
    """A logging filter: what a caller was told is not the server's error, and may quote rows."""
    return not (record.exc_info and isinstance(record.exc_info[1], _CALLERS))
