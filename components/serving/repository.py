"""The versions in memory, by number and label; the registry's labels are followed.

Requests hold the version that they found, so what they began they finish, whatever is switched
meanwhile. Whatever happens to the registry, the server goes on with what it has, and says so in its
log and in `serving_label_stale`.
"""

import asyncio
import contextlib
import gc
import logging
import os
import re
import time
from collections.abc import Callable

from prometheus_client import Gauge
from starlette.exceptions import HTTPException

from components.errors import PipelineStop
from components.registry import store
from components.registry.store import Labels
from components.serving.served import ServedVersion

_LOG = logging.getLogger(__name__)
_UNLABELLED = 2
"""So many versions without a label stay in memory: those loaded last."""
_RETRY_SECONDS = 30.0
"""A version that could not be loaded is not tried again sooner."""
_NUMBER = re.compile("[0-9]{1,9}")
_LABEL_VERSION = Gauge(
    "serving_label_version", "The version that a label serves.", ["model_name", "label"]
)
_LABEL_STALE = Gauge(
    "serving_label_stale",
    "1 while a label serves another version than the registry says: it cannot be read or loaded.",
    ["model_name", "label"],
)


class Versions:
    """One model's versions. Only the event loop touches it; loading happens in threads."""

    def __init__(self, folder: str, default: str, load: Callable[[int], ServedVersion]):
        """Takes `registry/<model>`, the default label or number, and how to load a number."""
        self.name, self._folder = os.path.basename(os.path.normpath(folder)), folder
        self._default, self._load = default, load
        self.serves: Labels = {}
        """The version in memory that each label serves, the default among them."""
        self._pointed: Labels = {}
        self._loaded: dict[int, ServedVersion] = {}
        self._asked_for: list[int] = []
        self._one_at_a_time = asyncio.Lock()
        self._not_before: dict[int, float] = {}

    def begin(self, first: ServedVersion) -> None:
        """Takes the version for callers that name none.

        Raises:
            PipelineStop: If the labels cannot be read.
        """
        self._loaded[first.version] = first
        self._switch({self._default: first.version})
        self._pointed |= store.read_labels(self._folder)

    def names(self) -> list[str]:
        """What is in memory, by KServe's names: `taxi`, `taxi@champion`, `taxi@3`."""
        wanted = [*self.serves, *sorted(map(str, self._loaded.keys()))]
        return [self.name, *(f"{self.name}@{name}" for name in dict.fromkeys(wanted))]

    async def find(self, model: str, wanted: str = "") -> ServedVersion:
        """Finds a version, and loads it if need be.

        Args:
            model: The model's name, or one of `names`.
            wanted: A number or a label; without one, what the name says, or the default.

        Raises:
            HTTPException: 404 if it is not there, and what is; 503 if it cannot be loaded.
        """
        model, _, named = model.partition("@")
        wanted = wanted or named or self._default
        if model != self.name:
            raise HTTPException(404, f"there is no model '{model[:80]}' here, only '{self.name}'")
        number = self.serves.get(wanted) or self._pointed.get(wanted)
        if number is None and _NUMBER.fullmatch(wanted):
            number = int(wanted)
        if number not in self._loaded:
            versions = await asyncio.to_thread(store.list_versions, self._folder)
            if number not in versions:
                raise HTTPException(
                    404,
                    f"'{self.name}' has no version or label '{wanted[:80]}'. Versions: "
                    f"{', '.join(map(str, versions))}. Labels: {', '.join(self._pointed)}",
                )
            served = await asyncio.shield(self._bring(number))  # a caller that goes stops it not
            self._asked_for = [*self._asked_for, number][-_UNLABELLED:]
            self._switch(self._pointed)
            return served
        return self._loaded[number]

    async def follow(self, seconds: float) -> None:
        """Looks at the labels now and then, until it is cancelled."""
        said = ""
        while True:
            again = False
            try:
                again = await self._look()
                said = ""
            except Exception as error:  # labels can be damaged in many ways
                self._show({})
                if str(error) != said:
                    _LOG.error("The labels of %s are not followed: %s", self.name, error)
                    said = str(error)
            await asyncio.sleep(0 if again else seconds)

    async def _look(self) -> bool:
        """Makes labels serve what is in memory, then loads one version, the default's first.

        Returns:
            Whether to look again at once: a rollback does not wait for the versions of others.
        """
        pointed = await asyncio.to_thread(store.read_labels, self._folder)
        if not pointed and not self._default.isdecimal():
            raise PipelineStop(f"{self._folder} has no labels any more.")
        # The default stays what it is while no label says otherwise.
        self._switch({self._default: self.serves[self._default], **pointed})
        now = time.monotonic()
        for number in self._pointed.values():
            if number not in self._loaded and now >= self._not_before.get(number, 0):
                with contextlib.suppress(HTTPException):
                    await self._bring(number)
                return True
        return False

    def _switch(self, pointed: Labels) -> None:
        """Makes labels serve what they point to, as far as it is in memory; frees the rest."""
        self._pointed = pointed
        for label, number in pointed.items():
            if number in self._loaded and self.serves.get(label) != number:
                self.serves[label] = number
                _LOG.info("%s: %s is version %d now", self.name, label, number)
        for label in self.serves.keys() - pointed.keys():
            del self.serves[label]
            _LOG.info("%s: there is no %s any more", self.name, label)
        for number in self._loaded.keys() - {*self.serves.values(), *self._asked_for}:
            del self._loaded[number]
            # A SavedModel refers to itself, and the collector is made seldom.
            asyncio.get_running_loop().call_later(1.0, gc.collect)
        self._show(pointed)

    def _show(self, pointed: Labels) -> None:
        """Shows the labels at /metrics; one that should not be there is stale, too."""
        _LABEL_VERSION.clear()
        _LABEL_STALE.clear()
        for label, version in self.serves.items():
            _LABEL_VERSION.labels(self.name, label).set(version)
        for label in {*self.serves, *pointed}:
            stale = self.serves.get(label) != pointed.get(label)
            _LABEL_STALE.labels(self.name, label).set(stale)

    async def _bring(self, number: int) -> ServedVersion:
        """Loads a version, once, however many ask for it."""
        reason = f"version {number} of '{self.name}' cannot be loaded; the server's log says why"
        async with self._one_at_a_time:
            if number in self._loaded:
                return self._loaded[number]
            if time.monotonic() < self._not_before.get(number, 0):
                raise HTTPException(503, reason)
            try:
                self._loaded[number] = served = await asyncio.to_thread(self._load, number)
            except Exception as error:  # whatever a damaged version makes TensorFlow raise
                _LOG.error("Version %d of %s cannot be loaded: %s", number, self.name, error)
                self._not_before[number] = time.monotonic() + _RETRY_SECONDS
                raise HTTPException(503, reason) from error
        _LOG.info("Loaded version %d of %s", number, self.name)
        return served
