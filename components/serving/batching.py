"""Requests that wait are predicted together, and none waits for another to come.

One thread for each version predicts. While it does, requests queue; when it is free, it takes all
that wait as one call: a call has costs that do not grow with its rows. Alone, a request is
predicted at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from starlette.exceptions import HTTPException

from components.inference.columns import Columns

Predict = Callable[[Columns], np.ndarray]


class _Waiting(NamedTuple):
    columns: Columns
    rows: int
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """A version's queue. For one event loop; `predict` runs in a thread of its own.

    The thread ends when nothing refers to the batcher any more.
    """

    def __init__(self, predict: Predict, max_batch_rows: int, max_waiting_rows: int):
        """Takes how to predict, and the bounds; a larger request is a call by itself."""
        self._predict = predict
        self._max_batch_rows = max_batch_rows
        self._max_waiting_rows = max_waiting_rows
        self._waiting: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._work: asyncio.Task[None] | None = None

    async def predict(self, columns: Columns) -> np.ndarray:
        """Predicts checked rows, perhaps together with others.

        Raises:
            HTTPException: 503, if too many rows wait.
            Exception: What the model raised for these rows.
        """
        rows = len(next(iter(columns.values())))
        if self._waiting and self._waiting_rows + rows > self._max_waiting_rows:
            raise HTTPException(
                503,
                f"{self._waiting_rows} rows wait to be predicted, and at most "
                f"{self._max_waiting_rows} may; send this request again later",
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(columns, rows, loop.create_future())
        self._waiting.append(waiting)
        self._waiting_rows += rows
        if self._work is None:
            self._work = loop.create_task(self._predict_all())
        return await waiting.answer

    async def _predict_all(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._take():
            columns = [waiting.columns for waiting in batch]
            try:
                answers = await loop.run_in_executor(
                    self._thread, _together, self._predict, columns
                )
            except Exception as error:  # whatever it is, no caller waits for ever
                answers = [error] * len(batch)
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.answer.done():  # its caller has gone
                    continue
                if isinstance(answer, Exception):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)
        self._work = None

    def _take(self) -> list[_Waiting]:
        """Takes the requests that are next, at least one if any waits."""
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            if batch and rows + self._waiting[0].rows > self._max_batch_rows:
                break
            batch.append(self._waiting.popleft())
            rows += batch[-1].rows
        self._waiting_rows -= rows
        return batch


def _together(predict: Predict, requests: list[Columns]) -> list[np.ndarray | Exception]:
    """Predicts requests in one call; if it fails, each by itself, so that one fails alone."""
    if len(requests) == 1:
        return [_alone(predict, requests[0])]
    try:
        merged = {name: np.concatenate([r[name] for r in requests]) for name in requests[0]}
        predictions = predict(merged)
    except Exception:
        return [_alone(predict, request) for request in requests]
    ends = np.cumsum([len(next(iter(request.values()))) for request in requests])
    return list(np.split(predictions, ends[:-1]))


def _alone(predict: Predict, columns: Columns) -> np.ndarray | Exception:
    try:
        return predict(columns)
    except Exception as error:
        return error
