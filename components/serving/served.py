"""A version as the endpoints call it: checks a request, predicts, logs, and answers."""

import asyncio
import functools
import logging
from typing import Any

import numpy as np
from kserve import InferRequest, InferResponse
from kserve.metrics import PREDICT_HIST_TIME
from prometheus_client import Counter, Gauge
from starlette.exceptions import HTTPException

from components.inference import instances, prediction_log
from components.inference.columns import Columns, InvalidRows
from components.inference.instances import Keys
from components.inference.model import DETAILS, LoadedVersion
from components.inference.prediction_log import PredictionLog
from components.serving import tensors
from components.serving.batching import Batcher, Predict
from components.serving.settings import Serving

_LOG = logging.getLogger(__name__)
_PLAIN = {"predictions"}
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


class ServedVersion:
    """One version in memory. Where its label has classes, answers have their names."""

    def __init__(
        self,
        name: str,
        loaded: LoadedVersion,
        settings: Serving,
        log: PredictionLog | None,
        reader: Any = instances,
    ):
        """Takes the model's name, the version, the bounds, the log, and what reads V1's rows."""
        self.name, self.version, self.signature = name, loaded.version, loaded.signature
        self._loaded, self._settings, self._log, self._reader = loaded, settings, log, reader
        self._batchers = {
            detail: self._batcher(functools.partial(loaded.predict_with, detail))
            for detail in ("", *DETAILS)
        }

    def _batcher(self, predict: Predict) -> Batcher:
        rows, calls = (metric.labels(self.name, self.version) for metric in (_ROWS, _CALLS))

        def counted(columns: Columns) -> np.ndarray:
            values = predict(columns)
            calls.inc()
            rows.inc(len(values))
            return values

        return Batcher(counted, self._settings.max_batch_rows, self._settings.max_waiting_rows)

    def metadata(self) -> dict[str, Any]:
        """V2's metadata of a model."""
        parts = self._loaded.parts()
        for detail in self._loaded.details:
            parts |= self._loaded.parts(detail)
        return tensors.describe(self.name, self.version, self.signature, parts)

    async def predict(self, body: Any, detail: str = "") -> dict[str, Any]:
        """Answers V1's body, as parsed from JSON, whose `signature_name` may ask for a detail.

        Raises:
            HTTPException: 400 with what to change in the request, 503 if too many rows wait, 500
                if the model raised an error.
        """
        asked = body.get("signature_name") if isinstance(body, dict) else None
        detail = detail or (asked if isinstance(asked, str) and asked in DETAILS else "")
        keys, parts = await self._predict(self._reader, body, detail)
        return instances.reply(self.signature, keys, parts)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answers V2's request; a detail is among the outputs if one of its outputs is asked for.

        Raises:
            HTTPException: As `predict`.
        """
        asked = {output.name for output in request.request_outputs or []}
        known = [d for d in self._loaded.details if asked & {*self._loaded.parts(d)} - _PLAIN]
        detail = next(iter(known), "uncertain" if "uncertainty" in asked else "")
        keys, parts = await self._predict(tensors, request, detail)
        outputs = tensors.outputs(self.signature, keys, parts)
        return tensors.reply(request, self.name, self.version, outputs)

    async def _predict(
        self, protocol: Any, request: Any, detail: str
    ) -> tuple[Keys | None, dict[str, np.ndarray]]:
        """Keys, and predictions with the outputs of a detail, of the rows of a request."""
        rows, most = protocol.count(request), self._settings.max_request_rows
        if rows > most:
            reason = f"a request has at most {most} rows, and this one {rows}; send several, or "
            raise HTTPException(400, f"{reason}predict in bulk")
        with PREDICT_HIST_TIME.labels(self.name).time():
            try:
                read = functools.partial(protocol.read, self.signature, request)
                is_quick = rows < _IN_A_THREAD and protocol in (instances, tensors)
                columns, keys = read() if is_quick else await asyncio.to_thread(read)
                values = await self._batchers[detail].predict(columns)
            except InvalidRows as error:
                raise HTTPException(400, str(error)) from None
            except HTTPException:
                raise
            except Exception as error:  # whatever the model raised
                _LOG.exception("Version %d of %s failed", self.version, self.name)
                reason = (
                    f"version {self.version} of '{self.name}' failed; the server's log says why"
                )
                raise HTTPException(500, reason) from error
        parts = self._loaded.split(detail, values)
        if self._log is not None:
            self._log.add(self.version, keys, columns, parts["predictions"])
        return keys, parts


def show_log(log: PredictionLog) -> None:
    """Shows the prediction log's own counts at /metrics."""
    _LOGGED.set_function(lambda: log.written)
    for reason in (prediction_log.FULL, prediction_log.UNFIT, prediction_log.UNWRITTEN):
        _DROPPED.labels(reason).set_function(functools.partial(log.dropped.__getitem__, reason))
