"""A version as KServe's server calls it: reads a request, predicts, and writes the answer."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from kserve import InferRequest, Model
from kserve.errors import InvalidInput

from components.inference.columns import Columns, InvalidRows
from components.inference.model import LoadedVersion
from components.inference.prediction_log import PredictionLog
from components.registry.signature import Signature
from components.serving import instances, metrics, tensors
from components.serving.batching import Batcher
from components.serving.errors import ModelFailed, Unavailable
from components.serving.keys import Keys
from components.serving.settings import Serving

_LOG = logging.getLogger(__name__)
VERSION_HEADER = "x-model-version"
_IN_A_THREAD = 256
"""Rows from which a request is checked in a thread, since that takes some milliseconds."""


@dataclass(frozen=True)
class Asked:
    """A request that can be predicted."""

    payload: Any
    """V2's `InferRequest`, or V1's body."""
    columns: Columns
    keys: Keys | None


class ServedVersion(Model):
    """One version in memory. KServe calls `preprocess`, `predict` and `postprocess` in turn."""

    def __init__(
        self, name: str, loaded: LoadedVersion, settings: Serving, log: PredictionLog | None
    ):
        """Takes the model's name, the version, the bounds, and where predictions are logged."""
        super().__init__(name, return_response_headers=True)
        self.ready = True
        self.version = loaded.version
        self.signature: Signature = loaded.signature
        self._width = loaded.outputs
        self._max_request_rows = settings.max_request_rows
        self._log = log
        self._batcher = Batcher(
            _counted(name, loaded), settings.max_batch_rows, settings.max_waiting_rows
        )

    def get_input_types(self) -> list[dict[str, Any]]:
        """For V2's metadata."""
        return tensors.describe_inputs(self.signature)

    def get_output_types(self) -> list[dict[str, Any]]:
        """For V2's metadata."""
        return tensors.describe_outputs(self._width)

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> Asked:
        """Checks a request.

        Raises:
            InvalidInput: If it cannot be predicted; the message says what to change.
        """
        protocol = tensors if isinstance(payload, InferRequest) else instances
        read: Callable[..., tuple[Columns, Keys | None]] = protocol.read
        rows = protocol.count(payload)
        if rows > self._max_request_rows:
            raise InvalidInput(
                f"a request has at most {self._max_request_rows} rows, and this one {rows}; send "
                "several, or predict in bulk"
            )
        try:
            if rows < _IN_A_THREAD:
                columns, keys = read(self.signature, payload)
            else:
                columns, keys = await asyncio.to_thread(read, self.signature, payload)
        except InvalidRows as error:
            raise InvalidInput(str(error)) from None
        return Asked(payload, columns, keys)

    async def predict(
        self,
        payload: Asked,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Predicts, logs, and answers in the request's own protocol.

        Raises:
            Unavailable: If too many rows wait.
            ModelFailed: If the model raised an error.
        """
        try:
            predictions = await self._batcher.predict(payload.columns)
        except Unavailable:
            raise
        except Exception as error:
            _LOG.exception("Version %d of %s failed", self.version, self.name)
            raise ModelFailed(self.name, self.version) from error
        if self._log is not None:
            self._log.add(self.version, payload.keys, payload.columns, predictions)
        if response_headers is not None:
            response_headers[VERSION_HEADER] = str(self.version)
        if isinstance(payload.payload, InferRequest):
            return tensors.reply(
                payload.payload, self.name, self.version, payload.keys, predictions
            )
        return instances.reply(payload.keys, predictions)


def _counted(name: str, loaded: LoadedVersion) -> Callable[[Columns], np.ndarray]:
    rows = metrics.ROWS.labels(name, loaded.version)
    calls = metrics.CALLS.labels(name, loaded.version)

    def predict(columns: Columns) -> np.ndarray:
        predictions = loaded.predict(columns)
        calls.inc()
        rows.inc(len(predictions))
        return predictions

    return predict
