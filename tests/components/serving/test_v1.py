"""The V1 protocol: TF Serving's row format, and keys."""

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.components.serving.servers import MODEL, Server, expected

ROWS = [
    {"amount": 1.5, "hour": 7, "shop": "abc"},
    {"hour": 3, "shop": None},
    {"amount": 2, "hour": 4.0, "shop": "never seen, ü", "note": "ignored", "other": [1]},
]


def test_rows_are_answered_as_tf_serving_answers_them(server: Server) -> None:
    found = server.predict(ROWS, signature_name="raw")
    assert found.status_code == 200
    assert found.json() == {"predictions": [[expected(3, row)] for row in ROWS]}
    assert found.headers["x-model-version"] == "3"
    assert found.headers["content-type"] == "application/json"


def test_the_request_that_is_printed_can_be_typed(server: Server) -> None:
    command = next(line for line in server.said.splitlines() if "curl" in line)
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    row = {"amount": 1.5, "hour": 1, "shop": "text"}
    assert found.stdout == f'{{"predictions":[[{expected(3, row)}]]}}'


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", ""])
def test_the_content_type_does_not_matter(server: Server, content_type: str) -> None:
    found = server.client.post(
        f"/v1/models/{MODEL}:predict",
        content=b'{"instances": [{"hour": 1}]}',
        headers={"content-type": content_type},
    )
    assert found.json() == {"predictions": [[30001.5]]}


def test_keys_come_back_with_their_own_predictions(server: Server) -> None:
    rows = [{**row, "key": key} for row, key in zip(ROWS, [7, "seven", -(1 << 63)], strict=True)]
    assert server.predict(rows).json() == {
        "predictions": [{"key": row["key"], "predictions": [expected(3, row)]} for row in rows]
    }


def test_keys_come_back_whatever_is_predicted_together(server: Server) -> None:
    def ask(number: int) -> None:
        chance = random.Random(number)
        rows = [
            {
                "key": f"{number}-{n}" if number % 2 else number * 1000 + n,
                "hour": number,
                "amount": n,
            }
            for n in range(chance.randrange(1, 20))
        ]
        chance.shuffle(rows)
        found = server.predict(rows).json()["predictions"]
        assert found == [{"key": r["key"], "predictions": [expected(3, r)]} for r in rows]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(300)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([1, 2.5], "row 1: 'key' must be a text or a 64-bit integer, got float"),
        ([None, 1], "row 0: 'key' must be a text or a 64-bit integer, got NoneType"),
        ([True, "a"], "row 0: 'key' must be a text or a 64-bit integer, got bool"),
        ([[1], {}], "row 0: 'key' must be"),
        ([1 << 63, 1], "row 0: 'key' must be"),
    ],
)
def test_a_key_of_another_type_is_refused(server: Server, keys: list[Any], message: str) -> None:
    found = server.predict([{"key": key, "hour": 1} for key in keys])
    assert found.status_code == 400
    assert message in found.json()["error"]


def test_rows_with_and_without_keys_are_refused(server: Server) -> None:
    found = server.predict([{"hour": 1}, {"hour": 1, "key": 3}])
    assert (found.status_code, found.json()) == (
        400,
        {"error": "row 1 has a 'key', row 0 has none"},
    )


def test_answers_name_the_classes(server: Server) -> None:
    rows = [{"amount": -40_000, "hour": 1}, {"amount": -40_000, "hour": 0}]
    found = server.predict(rows, "/versions/4").json()
    assert found == {
        "predictions": [[1.0], [0.0]],
        "classes": ["evening", "noon"],
        "labels": ["noon", "evening"],
    }
    keyed = server.predict([{**row, "key": n} for n, row in enumerate(rows)], "/versions/4").json()
    assert keyed["classes"] == ["evening", "noon"]
    assert keyed["predictions"] == [
        {"key": 0, "predictions": [1.0], "label": "noon"},
        {"key": 1, "predictions": [0.0], "label": "evening"},
    ]
