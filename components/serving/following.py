"""Follows the registry's labels: loads what they point to beside what serves, then switches.

Whatever happens to the registry, the server goes on with what it has, and says so in its log and
in `serving_label_stale`.
"""

import asyncio
import gc
import logging

from components.errors import PipelineStop
from components.registry import store
from components.registry.store import Labels
from components.serving import metrics
from components.serving.errors import Unavailable
from components.serving.served import ServedVersion
from components.serving.versions import Versions

_LOG = logging.getLogger(__name__)


class Follower:
    """Keeps the labelled versions what `labels.json` says."""

    def __init__(self, versions: Versions):
        """Takes what to keep up to date."""
        self._versions = versions
        self._held = versions.held()
        self._told = ""

    async def follow(self, seconds: float) -> None:
        """Looks at the labels now and then, until it is cancelled."""
        while True:
            self._free()
            loaded_one = False
            try:
                loaded_one = await self._look()
                self._told = ""
            except Exception as error:  # labels.json can be damaged in many ways
                self._tell(error)
            if not loaded_one:
                await asyncio.sleep(seconds)

    async def _look(self) -> bool:
        """Loads one version at most, the default first, so that it never waits for the others.

        Returns:
            Whether it has loaded one: then there may be more.
        """
        versions = self._versions
        pointed = await asyncio.to_thread(store.read_labels, versions.folder)
        if not pointed and not versions.default.isdecimal():
            raise PipelineStop(f"{versions.folder} has no labels any more.")
        # The default stays what it is while labels.json does not name it.
        default = {versions.default: versions.labelled[versions.default].version}
        labelled, loaded_one = {}, False
        for label, number in {**default, **pointed}.items():
            served = versions.in_memory(number)
            if served is None and not loaded_one:
                served = await self._load(number)
                loaded_one = served is not None
            if served := served or versions.labelled.get(label):
                labelled[label] = served
        self._log_moves(labelled)
        versions.switch(labelled, pointed)
        self._show({**default, **pointed})
        return loaded_one

    async def _load(self, number: int) -> ServedVersion | None:
        try:
            return await self._versions.loaded(number)
        except Unavailable:
            return None

    def _log_moves(self, labelled: dict[str, ServedVersion]) -> None:
        name, before = self._versions.name, self._versions.labelled
        for label, served in labelled.items():
            if before.get(label) is not served:
                _LOG.info("%s: %s is version %d now", name, label, served.version)
        for label in before.keys() - labelled.keys():
            _LOG.info("%s: there is no %s any more", name, label)

    def _show(self, pointed: Labels) -> None:
        serves = {label: served.version for label, served in self._versions.labelled.items()}
        metrics.show_labels(self._versions.name, serves, pointed)

    def _tell(self, error: Exception) -> None:
        """Logs what keeps the labels from being followed, once."""
        self._show({})
        if str(error) != self._told:
            _LOG.error("The labels of %s are not followed: %s", self._versions.name, error)
            self._told = str(error)

    def _free(self) -> None:
        """Frees versions that are no longer held, when nobody who found them is left.

        A SavedModel in Python refers to itself, and the collector seldom comes by on its own: see
        `components.serving.running`.
        """
        held = self._versions.held()
        if not self._held <= held:
            gc.collect()
        self._held = held
