"""The versions that are in memory: those with a label, and the last ones asked for by number.

Requests hold the version that they found, so what they began they finish, whatever is switched
meanwhile. `components.serving.following` says when.
"""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from kserve import ModelRepository

from components.registry import store
from components.registry.store import Labels
from components.serving.errors import Unavailable, UnknownVersion
from components.serving.served import ServedVersion

_LOG = logging.getLogger(__name__)
_UNLABELLED = 2
"""So many versions without a label stay in memory."""
_RETRY_SECONDS = 30.0
"""A version that could not be loaded is not tried again sooner."""
_NUMBER = re.compile("[0-9]{1,9}")
_NONE = -1
_AT = "@"


def addressed(model: str, wanted: str) -> str:
    """The name by which a version or label of a model is found; without one, the default."""
    return f"{model}{_AT}{wanted}" if wanted else model


class Versions(ModelRepository):
    """One model's versions. Only the event loop touches it; loading happens in threads."""

    def __init__(
        self,
        folder: str,
        default: str,
        first: ServedVersion,
        load: Callable[[int], ServedVersion],
    ):
        """Begins with the version for callers that name none.

        Args:
            folder: `registry/<model>`.
            default: What `first` was found by: a label, or a number.
            first: The version that it is now.
            load: Loads a version by its number.

        Raises:
            PipelineStop: If the labels cannot be read.
        """
        super().__init__()
        self.name, self.folder, self.default = first.name, folder, default
        self._load = load
        self._labelled: Mapping[str, ServedVersion] = {default: first}
        self._pointed = store.read_labels(folder)
        self._unlabelled: OrderedDict[int, ServedVersion] = OrderedDict()
        self._loading: dict[int, asyncio.Task[ServedVersion]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._failed: dict[int, float] = {}

    def get_models(self) -> dict[str, ServedVersion]:
        """What KServe lists: the model, whatever the versions."""
        return {self.name: self._labelled[self.default]}

    @property
    def labelled(self) -> Mapping[str, ServedVersion]:
        """What each label serves, the default among them."""
        return self._labelled

    def switch(self, labelled: Mapping[str, ServedVersion], pointed: Labels) -> None:
        """Serves other versions from now on.

        Args:
            labelled: By label, the default among them.
            pointed: What the labels should serve; some of it may not be loadable.
        """
        self._labelled, self._pointed = labelled, pointed

    async def find(self, name: str) -> ServedVersion:
        """Finds a version, and loads it if need be.

        Args:
            name: `<model>`, or what `addressed` makes.

        Raises:
            UnknownVersion: If it is not there; the message says what is.
            Unavailable: If it cannot be loaded.
        """
        model, _, wanted = name.partition(_AT)
        if model != self.name:
            raise UnknownVersion(f"there is no model '{model[:80]}' here, only '{self.name}'")
        if (served := self._labelled.get(wanted or self.default)) is not None:
            return served
        number = int(wanted) if _NUMBER.fullmatch(wanted) else self._pointed.get(wanted, _NONE)
        if (served := self.in_memory(number)) is not None:
            return served
        versions = await asyncio.to_thread(store.list_versions, self.folder)
        if number not in versions:
            raise UnknownVersion(
                f"'{self.name}' has no version or label '{wanted[:80]}'. Versions: "
                f"{', '.join(map(str, versions))}. Labels: {', '.join(self._pointed)}"
            )
        served = await self.loaded(number)
        self._keep(served)
        return served

    def in_memory(self, number: int) -> ServedVersion | None:
        """A version, if it is loaded."""
        for served in self._labelled.values():
            if served.version == number:
                return served
        if number in self._unlabelled:
            self._unlabelled.move_to_end(number)
        return self._unlabelled.get(number)

    def held(self) -> set[int]:
        """The versions that are loaded."""
        return {served.version for served in self._labelled.values()} | self._unlabelled.keys()

    def _keep(self, served: ServedVersion) -> None:
        self._unlabelled[served.version] = served
        while len(self._unlabelled) > _UNLABELLED:
            self._unlabelled.popitem(last=False)

    async def loaded(self, number: int) -> ServedVersion:
        """Loads a version, once, however many ask for it; a caller that goes does not stop it.

        Raises:
            Unavailable: If it cannot be loaded, now or a while ago.
        """
        if time.monotonic() < self._failed.get(number, 0) + _RETRY_SECONDS:
            raise self._cannot_be_loaded(number)
        if number not in self._loading:
            task = asyncio.create_task(self._load_in_a_thread(number))
            task.add_done_callback(lambda _: self._loading.pop(number))
            self._loading[number] = task
        return await asyncio.shield(self._loading[number])

    async def _load_in_a_thread(self, number: int) -> ServedVersion:
        async with self._one_at_a_time:
            try:
                served = await asyncio.to_thread(self._load, number)
            except Exception as error:  # whatever a damaged version makes TensorFlow raise
                _LOG.error("Version %d of %s cannot be loaded: %s", number, self.name, error)
                self._failed[number] = time.monotonic()
                raise self._cannot_be_loaded(number) from error
        _LOG.info("Loaded version %d of %s", number, self.name)
        return served

    def _cannot_be_loaded(self, number: int) -> Unavailable:
        return Unavailable(
            f"version {number} of '{self.name}' cannot be loaded; the server's log says why"
        )
