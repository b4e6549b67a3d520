"""The versions in memory by KServe's names: `taxi`, `taxi@champion`, `taxi@3`; labels are followed.

Requests hold the version that they found, so what they began they finish, whatever is switched
meanwhile. Whatever happens to the registry, the server goes on with what it has, and says so in its
log and in `serving_label_stale`.
"""

import asyncio
import gc
import logging
import os
import re
import time
from collections.abc import Callable

from kserve import ModelRepository
from prometheus_client import Gauge
from starlette.exceptions import HTTPException

from components.errors import PipelineStop
from components.registry import store
from components.registry.store import Labels
from components.serving.served import ServedVersion

_LOG = logging.getLogger(__name__)
_UNLABELLED = 2
"""So many versions without a label stay in memory: those asked for last."""
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


def addressed(model: str, wanted: str) -> str:
    """The name of a model's version or label; without one, the default's."""
    return f"{model}@{wanted}" if wanted else model


class Versions(ModelRepository):
    """One model's versions. Only the event loop touches it; loading happens in threads."""

    def __init__(self, folder: str, default: str, load: Callable[[int], ServedVersion]):
        """Takes `registry/<model>`, the label or number of `<model>`, and how to load a number."""
        super().__init__()
        self.name, self._folder = os.path.basename(os.path.normpath(folder)), folder
        self._default, self._load = default, load
        self.serves: Labels = {}
        """The version in memory that each label serves, the default among them."""
        self._pointed: Labels = {}
        self._asked_for: list[int] = []
        self._one_at_a_time = asyncio.Lock()
        self._not_before: dict[int, float] = {}
        self._freed = False
        self._said = ""

    def begin(self, first: ServedVersion) -> None:
        """Takes the version for callers that name none.

        Raises:
            PipelineStop: If the labels cannot be read.
        """
        self.update(first, addressed(self.name, str(first.version)))
        self._switch({self._default: first.version})
        self._pointed |= store.read_labels(self._folder)

    async def find(self, name: str) -> ServedVersion:
        """Finds a version by a name that `addressed` makes, and loads it if need be.

        Raises:
            HTTPException: 404 if it is not there, and what is; 503 if it cannot be loaded.
        """
        if (served := self.models.get(name)) is not None:
            if served.version in self._asked_for:
                self._asked_for.sort(key=served.version.__eq__)  # it is the last that goes
            return served
        model, _, wanted = name.partition("@")
        if model != self.name:
            raise HTTPException(404, f"there is no model '{model[:80]}' here, only '{self.name}'")
        versions = await asyncio.to_thread(store.list_versions, self._folder)
        number = int(wanted) if _NUMBER.fullmatch(wanted) else self._pointed.get(wanted)
        if number not in versions:
            raise HTTPException(
                404,
                f"'{self.name}' has no version or label '{wanted[:80]}'. Versions: "
                f"{', '.join(map(str, versions))}. Labels: {', '.join(self._pointed)}",
            )
        # A caller that goes does not stop it.
        served = await asyncio.shield(asyncio.create_task(self._loaded(number)))
        if number not in self._asked_for:
            self._asked_for.append(number)
        self._switch(self._pointed)
        return served

    async def follow(self, seconds: float) -> None:
        """Looks at the labels now and then, until it is cancelled."""
        while True:
            if self._freed:  # a SavedModel refers to itself, and the collector is made seldom
                self._freed = False
                gc.collect()
            loaded_one = False
            try:
                loaded_one = await self._look()
                self._said = ""
            except Exception as error:  # labels can be damaged in many ways
                self._show({})
                if str(error) != self._said:
                    _LOG.error("The labels of %s are not followed: %s", self.name, error)
                    self._said = str(error)
            if not loaded_one:
                await asyncio.sleep(seconds)

    async def _look(self) -> bool:
        """Switches to what is in memory, then loads one version at most, the default's first.

        Returns:
            Whether it has loaded one: then the labels are looked at again at once.
        """
        pointed = await asyncio.to_thread(store.read_labels, self._folder)
        if not pointed and not self._default.isdecimal():
            raise PipelineStop(f"{self._folder} has no labels any more.")
        # The default stays what it is while no label says otherwise.
        pointed = {self._default: self.serves[self._default], **pointed}
        self._switch(pointed)
        for number in pointed.values():
            if addressed(self.name, str(number)) not in self.models:
                try:
                    await self._loaded(number)
                except HTTPException:
                    continue
                return True
        return False

    def _switch(self, pointed: Labels) -> None:
        """Makes labels serve what they point to, as far as it is in memory; frees what is not held.

        The default, `<model>`, is the label or number that was asked for at the start.
        """
        self._pointed = pointed
        for label, number in pointed.items():
            served = self.models.get(addressed(self.name, str(number)))
            if served is not None and self.serves.get(label) != number:
                self.serves[label] = number
                self.update(served, addressed(self.name, label))
                if label == self._default:
                    self.update(served, self.name)
                _LOG.info("%s: %s is version %d now", self.name, label, number)
        for label in self.serves.keys() - pointed.keys():
            del self.serves[label], self.models[addressed(self.name, label)]
            _LOG.info("%s: there is no %s any more", self.name, label)
        self._asked_for = self._asked_for[-_UNLABELLED:]
        held = {*self.serves.values(), *self._asked_for}
        for name, served in [*self.models.items()]:
            if served.version not in held:
                del self.models[name]
                self._freed = True
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

    async def _loaded(self, number: int) -> ServedVersion:
        """Loads a version, once, however many ask for it."""
        name = addressed(self.name, str(number))
        async with self._one_at_a_time:
            if name in self.models:
                return self.models[name]
            if time.monotonic() < self._not_before.get(number, 0):
                raise self._cannot_be_loaded(number)
            try:
                self.update(await asyncio.to_thread(self._load, number), name)
            except Exception as error:  # whatever a damaged version makes TensorFlow raise
                _LOG.error("Version %d of %s cannot be loaded: %s", number, self.name, error)
                self._not_before[number] = time.monotonic() + _RETRY_SECONDS
                raise self._cannot_be_loaded(number) from error
        _LOG.info("Loaded version %d of %s", number, self.name)
        return self.models[name]

    def _cannot_be_loaded(self, number: int) -> HTTPException:
        return HTTPException(
            503, f"version {number} of '{self.name}' cannot be loaded; the server's log says why"
        )
