"""Requests that wait are predicted together; none is hurt by another."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from components.inference.columns import Columns
from components.serving.batching import Batcher
from tests.components.serving.servers import BREAKS, Server, expected

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


def ask(model: Doubling, requests: list[list[float]], **bounds: int) -> list[Any]:
    """Asks for all but the first while the first is being predicted; answers as lists."""
    batcher = Batcher(model.predict, **{"max_batch_rows": 1024, "max_waiting_rows": 1024, **bounds})

    async def all_of_them() -> list[Any]:
        columns = [{"x": np.array(values, np.float32)} for values in requests]
        first = asyncio.create_task(batcher.predict(columns[0]))
        await asyncio.to_thread(model.begun.wait)
        others = [asyncio.create_task(batcher.predict(each)) for each in columns[1:]]
        await asyncio.sleep(0)  # now they wait
        model.may_end.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

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


def test_one_that_fails_fails_alone() -> None:
    model = Doubling()
    found = ask(model, [[1], [2], [UNLUCKY, 3], [4]])
    assert [found[0], found[1], found[3]] == [[[2]], [[4]], [[8]]]
    assert isinstance(found[2], ValueError)


def test_too_many_that_wait_are_refused() -> None:
    found = ask(Doubling(), [[1], [1, 1], [1], [1], [1]], max_waiting_rows=3)
    assert [isinstance(answer, HTTPException) for answer in found] == [False] * 3 + [True] * 2
    assert found[3].status_code == 503
    assert "3 rows wait to be predicted, and at most 3 may" in found[3].detail


def test_a_large_request_is_taken_when_nothing_waits() -> None:
    assert len(ask(Doubling(), [[1] * 9], max_waiting_rows=3)[0]) == 9


def test_one_whose_caller_has_gone_hurts_nobody() -> None:
    model = Doubling()
    batcher = Batcher(model.predict, 1024, 1024)

    async def two() -> np.ndarray:
        gone, stays = (
            asyncio.create_task(batcher.predict({"x": np.ones(1, np.float32)})) for _ in range(2)
        )
        await asyncio.to_thread(model.begun.wait)
        gone.cancel()
        model.may_end.set()
        return await stays

    assert asyncio.run(two()).tolist() == [[2]]


def test_in_a_server_a_request_that_breaks_the_model_hurts_nobody(server: Server) -> None:
    def one(number: int) -> None:
        row = {"hour": number, "amount": BREAKS if number % 10 == 0 else 1.0}
        found = server.predict([row])
        if row["amount"] == BREAKS:
            assert found.status_code == 500
            assert found.json()["error"].startswith("version 3 of ")
        else:
            assert found.json() == {"predictions": [[expected(3, row)]]}

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(200)))


def test_a_server_predicts_requests_together(server: Server) -> None:
    def counts() -> np.ndarray:
        names = ("serving_rows_total", "serving_model_calls_total")
        return np.array([server.metric(name, version="3") or 0 for name in names])

    server.predict([{"hour": 1}])
    before = counts()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: server.predict([{"hour": 1}]), range(400)))
    rows, calls = counts() - before
    assert rows == 400
    assert calls < rows


def test_a_call_that_cannot_be_put_together_hurts_nobody() -> None:
    """The columns of one differ: whatever is raised before the model is asked, nobody waits."""
    model = Doubling()
    batcher = Batcher(model.predict, 1024, 1024)
    x = np.ones(1, np.float32)

    async def four() -> list[Any]:
        first = asyncio.create_task(batcher.predict({"x": x}))
        await asyncio.to_thread(model.begun.wait)
        more = [asyncio.create_task(batcher.predict(c)) for c in ({"x": x, "y": x}, {"x": x})]
        await asyncio.sleep(0)
        model.may_end.set()
        return [*await asyncio.gather(first, *more), await batcher.predict({"x": x})]

    for answer in asyncio.run(asyncio.wait_for(four(), 10)):
        assert answer.tolist() == [[2]]
