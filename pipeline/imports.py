"""Imports of TFX, TFMA and all below them: no more than is needed, and no slower than they must be.

They are most of what a command takes that finds everything in the cache, and of a cluster's step.
"""

import gc
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_more_than_needed() -> Iterator[None]:
    """Lets modules of TFX's components and of TFMA be imported without all others there.

    Nothing is collected meanwhile: half a million objects stay, and looking through them again
    takes seconds.
    """
    gc.disable()
    for name in ("tfx.components", "tensorflow_model_analysis"):
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            assert spec
            sys.modules[name] = package = importlib.util.module_from_spec(spec)
            package.__class__ = _Waiting
    # What TFX's component specs take from TFMA.
    importlib.import_module("google.protobuf.wrappers_pb2")
    importlib.import_module("tensorflow_model_analysis.sdk")
    yield
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


class _Waiting(types.ModuleType):
    """A package whose `__init__` waits for the first name that it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not (self.__spec__ and self.__spec__.loader):
            raise AttributeError(name)
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)
