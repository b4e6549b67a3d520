"""Requests that wait are predicted together; none is hurt by another."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from components.inference.columns import Columns
from components.serving.batching import Batcher
from tests.components.inference.small_versions import BREAKS
from tests.components.serving.servers import Server, expected

UNLUCKY = 13


class Doubling:
    """A model that predicts when it is let, notes how many rows a call has, and fears 13."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.calls: list[int] = []

    def predict(self, columns: Columns) -> np.ndarray:
        self.begun.set()
        assert self.may_end.wait(30)
        self.calls.append(len(columns["x"]))
        if UNLUCKY in columns["x"]:
            raise ValueError("thirteen")
        return 2 * columns["x"][:, None]


def ask(model: Doubling, requests: list[Any], gone: int | None = None, **bounds: int) -> list[Any]:
    """Asks for all but the first while the first is being predicted; answers as lists.

    Of the request `gone` the caller goes away.
    """
    batcher = Batcher(model.predict, **{"max_batch_rows": 1024, "max_waiting_rows": 1024, **bounds})

    async def all_of_them() -> list[Any]:
        columns = [c if isinstance(c, dict) else {"x": np.array(c, np.float32)} for c in requests]
        asking = [asyncio.create_task(batcher.predict(columns[0]))]
        await asyncio.to_thread(model.begun.wait)
        asking += [asyncio.create_task(batcher.predict(each)) for each in columns[1:]]
        await asyncio.sleep(0)  # now they wait
        if gone is not None:
            asking[gone].cancel()
        model.may_end.set()
        return await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 30)

    answers = asyncio.run(all_of_them())
    return [a.tolist() if isinstance(a, np.ndarray) else a for a in answers]


def test_those_that_wait_are_predicted_together() -> None:
    model = Doubling()
    requests = [[float(n)] * (n % 3 + 1) for n in range(1, 12)]
    assert ask(model, requests) == [[[2 * n] for n in values] for values in requests]
    assert model.calls == [len(requests[0]), sum(map(len, requests[1:]))]


def test_a_call_has_at_most_so_many_rows_but_a_request_is_never_split() -> None:
    model = Doubling()
    ask(model, [[1], [1, 1], [1, 1], [1], [1] * 9, [1]], max_batch_rows=4)
    assert model.calls == [1, 4, 1, 9, 1]


def test_one_that_fails_or_fits_no_other_or_has_gone_hurts_nobody() -> None:
    x = np.ones(1, np.float32)
    found = ask(Doubling(), [[1], [2], [UNLUCKY, 3], [5], [4], {"x": x, "y": x}], gone=3)
    assert [*found[:2], *found[4:]] == [[[2]], [[4]], [[8]], [[2]]]
    assert isinstance(found[2], ValueError)
    assert isinstance(found[3], asyncio.CancelledError)


def test_too_many_that_wait_are_refused_but_a_large_one_is_taken_when_nothing_waits() -> None:
    found = ask(Doubling(), [[1] * 9, [1, 1], [1], [1]], max_waiting_rows=3)
    assert [isinstance(answer, HTTPException) for answer in found] == [False] * 3 + [True]
    assert "3 rows wait to be predicted, and at most 3 may" in found[3].detail


def test_in_a_server_a_request_that_breaks_the_model_hurts_nobody(server: Server) -> None:
    def counts() -> np.ndarray:
        names = ("serving_rows_total", "serving_model_calls_total")
        return np.array([server.metric(name, version="3") or 0 for name in names])

    def one(number: int) -> None:
        amount = BREAKS if number % 50 == 0 else 1.0
        row = {"hour": number, "amount": amount, "key": f"number {number}"}
        found = server.predict([row])
        if amount == BREAKS:
            assert (found.status_code, found.text[:20]) == (500, '{"error":"version 3 ')
        else:
            answer = {"key": row["key"], "predictions": [expected(3, row)]}
            assert found.json() == {"predictions": [answer]}

    before = counts()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(1, 300)))
    rows, calls = counts() - before
    assert rows == 299 - 5
    assert calls < rows  # predicted together
