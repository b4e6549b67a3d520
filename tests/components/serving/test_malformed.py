"""Bad requests get a sentence that says what to change, never a 500, and are not logged."""

import contextlib
import json
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.components.serving.servers import MODEL, Server

V1, V2 = f"/v1/models/{MODEL}:predict", f"/v2/models/{MODEL}/infer"
SECRET = "a-name-that-must-not-be-logged"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "hour", "shape": [2], "datatype": "INT64", "data": [1, 2], **changes}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", "the body must be"),
        (b'{"inputs": {"hour": [1]}}', 'the body must be {"instances"'),
        (b'{"instances": {"hour": 1}}', "'instances' must be a list of rows, and is of type dict"),
        (b'{"instances": null}', "'instances' must be a list of rows, and is of type NoneType"),
        (b'{"instances": []}', "'instances' must be a list of rows, and is empty"),
        (b'{"instances": [7]}', "row 0 must be an object"),
        (b'{"instances": [{"hour": 1}, {}]}', "row 1: 'hour' is required (an integer)"),
        (b'{"instances": [{"hour": "1"}]}', "row 0: 'hour' must be an integer, got '1'"),
        (b'{"instances": [{"hour": 1, "amounts": 1}]}', "did you mean 'amount'?"),
        (b'{"instances": [{"hour": 1.5, "shop": 7}]}', "row 0: 'shop' must be a text, got 7"),
        (b'{"instances": [{"hour": 1, "amount": 1e39}]}', "'amount' must be a number"),
        (b'{"instances": [{"hour": 9223372036854775808}]}', "'hour' must be an integer"),
    ],
)
def test_v1(server: Server, body: bytes, message: str) -> None:
    found = server.client.post(V1, content=body)
    assert found.status_code == 400, found.text
    assert message in found.json()["error"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "there are no tensors"),
        ("hour", "inputs: Input should be a valid list"),
        ([{"name": "hour"}], "Field required"),
        ([tensor(), tensor()], "there are two tensors 'hour'"),
        ([tensor(data=[1, [2]])], "does not fit the shape [2]"),
        ([tensor(data=[[1], [2, 3]], shape=[2, 1])], "does not fit the shape [2, 1]"),
        ([tensor(data=[1])], "does not fit the shape [2]"),
        ([tensor(data=[])], "does not fit the shape [2]"),
        ([tensor(shape=[1, 2])], "its shape must be [rows] or [rows, 1]"),
        ([tensor(shape=[])], "its shape must be"),
        ([tensor(shape=[0], data=[])], "its shape must be"),
        ([tensor(shape=[-1])], "its shape must be"),
        ([tensor(shape=[9])], "does not fit the shape"),
        ([tensor(shape=[10**30])], "a request has at most 10000 rows, and this one 1000000"),
        ([tensor(datatype="STRING")], "tensor 'hour' must be INT8 or"),
        ([tensor(datatype="BOOL", data=[True, False])], "tensor 'hour' must be INT8 or"),
        ([tensor(datatype="FP32", data=[1.5, 2])], "row 0: 'hour' must be an integer, got 1.5"),
        ([tensor(data=[1, None])], "row 1: 'hour' is required"),
        ([tensor(), tensor(name="amount", shape=[1], data=[1])], "has 1 rows, the first one 2"),
        ([tensor(), tensor(name="key", datatype="FP32")], "tensor 'key' must be BYTES or INT64"),
        ([tensor(), tensor(name="key", data=[1, "a"])], "tensor 'key' is INT64, and its data"),
        ([tensor(), tensor(name="key", data=[1, None])], "row 1: 'key' must be a text or"),
        ([tensor(name="nothing")], "has no column that the model reads"),
    ],
)
def test_v2(server: Server, inputs: Any, message: str) -> None:
    found = server.infer(inputs)
    assert found.status_code == 400, found.text
    assert message in found.json()["error"]


def test_v2_output_that_there_is_not(server: Server) -> None:
    found = server.infer([tensor()], outputs=[{"name": "nothing"}])
    assert (found.status_code, found.json()) == (
        400,
        {"error": "there is no output 'nothing', only predictions"},
    )


def test_what_a_caller_did_wrong_is_not_logged(server: Server) -> None:
    logged = len(server.log())
    server.predict([{"hour": SECRET}])
    server.infer([tensor(data=[SECRET, SECRET])])
    server.predict([{"hour": 1, "shop": SECRET}])
    assert server.log()[logged:] == ""


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, -(1 << 63), "\ud800", 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(["amount", "hour", "shop", "key", "note", "hous"]) | st.text()
_ROWS = st.lists(st.dictionaries(_NAMES, _VALUES, max_size=4) | _VALUES, max_size=4)
_TENSORS = st.lists(
    st.fixed_dictionaries(
        {
            "name": _NAMES | _VALUES,
            "shape": st.lists(st.integers(-1, 3), max_size=3) | _VALUES,
            "datatype": st.sampled_from(["INT64", "FP32", "FP16", "BYTES", "UINT8", "BOOL"])
            | _VALUES,
        },
        optional={
            "data": st.lists(_VALUES, max_size=3) | _VALUES,
            "parameters": st.dictionaries(
                st.sampled_from(["binary_data_size", "x"]), _VALUES, max_size=2
            )
            | _VALUES,
        },
    )
    | _VALUES,
    max_size=4,
)
_MORE = {
    "id": _VALUES,
    "outputs": st.lists(st.fixed_dictionaries({"name": _VALUES, "parameters": _VALUES})) | _VALUES,
    "parameters": st.fixed_dictionaries({"binary_data_output": _VALUES}) | _VALUES,
}


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.fixed_dictionaries({"instances": _ROWS | _VALUES})
    | st.fixed_dictionaries({"inputs": _TENSORS | _VALUES}, optional=_MORE)
    | _VALUES,
    v2=st.booleans(),
    raw=st.none() | st.binary(max_size=40),
)
def test_no_json_makes_a_500(server: Server, body: Any, v2: bool, raw: bytes | None) -> None:
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    if raw is not None:
        headers = {"inference-header-content-length": str(len(content))}
        content += raw
    found = server.client.post(V2 if v2 else V1, content=content, headers=headers)
    assert found.status_code in (200, 400), (content, found.text)
    if found.status_code == 400:
        assert found.json()["error"]


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    head = f"POST {V1} HTTP/1.1\r\nhost: x\r\ncontent-length: {2 << 20}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=30) as connection:
        connection.sendall(head.encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"error":"the body is larger than 1 MiB"}')


@pytest.mark.parametrize("path", [V1, V2])
def test_a_chunked_body_is_refused_when_it_gets_too_large(server: Server, path: str) -> None:
    kind = "content-type: application/json"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * (1 << 16) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=30) as connection:
        connection.sendall(head.encode())
        sent = 0
        with contextlib.suppress(OSError):  # the server hangs up
            while sent < 1 << 30:
                connection.sendall(chunk)
                sent += len(chunk)
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 1 << 26


def test_a_body_within_the_bound_is_served(server: Server) -> None:
    rows = [{"hour": 1, "shop": "x" * 1000}] * 900
    assert len(server.predict(rows).json()["predictions"]) == 900


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (V1, {"instances": [{}] * 10_001}),
        (V2, {"inputs": [{"name": "hour", "shape": [1 << 40], "datatype": "INT64", "data": [1]}]}),
    ],
)
def test_more_rows_than_a_request_may_have(server: Server, path: str, body: Any) -> None:
    found = server.client.post(path, json=body)
    assert found.status_code == 400
    assert "at most 10000 rows" in found.json()["error"]
