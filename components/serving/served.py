"""A version as KServe's server calls it: checks a request, predicts, logs, and answers."""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from kserve import InferRequest, Model
from prometheus_client import Counter, Gauge
from starlette.exceptions import HTTPException

from components.inference import instances, prediction_log
from components.inference.columns import Columns, InvalidRows
from components.inference.model import LoadedVersion
from components.inference.prediction_log import PredictionLog
from components.serving import tensors
from components.serving.batching import Batcher
from components.serving.settings import Serving

_LOG = logging.getLogger(__name__)
VERSION_HEADER = "x-model-version"
_IN_A_THREAD = 256
"""Rows from which a request is checked in a thread, since that takes some milliseconds."""
_ROWS = Counter("serving_rows", "Rows predicted.", ["model_name", "version"])
_CALLS = Counter(
    "serving_model_calls",
    "Calls of the SavedModel; rows by calls is how many rows were predicted together.",
    ["model_name", "version"],
)
_LOGGED = Gauge("prediction_log_rows_written", "Rows in files of the prediction log.")
_DROPPED = Gauge("prediction_log_rows_dropped", "Rows that are in no file of it.", ["reason"])


class ServedVersion(Model):
    """One version in memory. Where its label has classes, answers have their names."""

    def __init__(
        self, name: str, loaded: LoadedVersion, settings: Serving, log: PredictionLog | None
    ):
        """Takes the model's name, the version, the bounds, and where predictions are logged."""
        super().__init__(name, return_response_headers=True)
        self.ready = True
        self.version, self.signature = loaded.version, loaded.signature
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
        return tensors.describe_outputs(self.signature, self._width)

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Answers V2's `InferRequest`, or V1's body as parsed from JSON, in the same protocol.

        Raises:
            HTTPException: 400 with what to change in the request, 503 if too many rows wait, 500
                if the model raised an error.
        """
        protocol: Any = tensors if isinstance(payload, InferRequest) else instances
        rows = protocol.count(payload)
        if rows > self._max_request_rows:
            raise HTTPException(
                400,
                f"a request has at most {self._max_request_rows} rows, and this one {rows}; send "
                "several, or predict in bulk",
            )
        try:
            if rows < _IN_A_THREAD:
                columns, keys = protocol.read(self.signature, payload)
            else:
                columns, keys = await asyncio.to_thread(protocol.read, self.signature, payload)
        except InvalidRows as error:
            raise HTTPException(400, str(error)) from None
        predictions = await self._predict(columns)
        if self._log is not None:
            self._log.add(self.version, keys, columns, predictions)
        if response_headers is not None:
            response_headers[VERSION_HEADER] = str(self.version)
        if protocol is instances:
            return instances.reply(self.signature, keys, predictions)
        return tensors.reply(
            payload, self.name, self.version, tensors.outputs(self.signature, keys, predictions)
        )

    async def _predict(self, columns: Columns) -> np.ndarray:
        try:
            return await self._batcher.predict(columns)
        except HTTPException:
            raise
        except Exception as error:
            _LOG.exception("Version %d of %s failed", self.version, self.name)
            raise HTTPException(
                500, f"version {self.version} of '{self.name}' failed; the server's log says why"
            ) from error


def _counted(name: str, loaded: LoadedVersion) -> Callable[[Columns], np.ndarray]:
    rows = _ROWS.labels(name, loaded.version)
    calls = _CALLS.labels(name, loaded.version)

    def predict(columns: Columns) -> np.ndarray:
        predictions = loaded.predict(columns)
        calls.inc()
        rows.inc(len(predictions))
        return predictions

    return predict


def show_log(log: PredictionLog) -> None:
    """Shows the prediction log's own counts at /metrics."""
    _LOGGED.set_function(lambda: log.written)
    for reason in (prediction_log.FULL, prediction_log.UNFIT, prediction_log.UNWRITTEN):
        _DROPPED.labels(reason).set_function(functools.partial(log.dropped.__getitem__, reason))
