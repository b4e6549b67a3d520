"""Bad requests get a sentence that says what to change, never a 500, and are not logged."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from tests.components.inference.small_versions import BREAKS
from tests.components.serving.servers import MODEL, Server

V1, V2 = f"/v1/models/{MODEL}:predict", f"/v2/models/{MODEL}/infer"
SHAPE = "its shape must be [rows] or [rows, 1]"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "hour", "shape": [2], "datatype": "INT64", "data": [1, 2], **changes}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", 'the body must be {"instances"'),
        (b'{"instances": []}', "'instances' must be a list of rows, and is empty"),
        (b'{"instances": [7]}', "row 0 must be an object"),
        (b'{"instances": [{"hour": 1}, {}]}', "row 1: 'hour' is required (an integer)"),
        (b'{"instances": [{"hour": "1"}]}', "row 0: 'hour' must be an integer, got '1'"),
        (b'{"instances": [{"hour": 1, "amounts": 1}]}', "did you mean 'amount'?"),
        (b'{"instances": [{"hour": 1, "key": 2.5}]}', "'key' must be a text or a 64-bit integer"),
        (b'{"instances": [{"hour": 1}, {"hour": 1, "key": 3}]}', "row 0 has none"),
        (b'{"instances": [%s{}]}' % (b"{}," * 10_000), "at most 10000 rows"),
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
        ("hour", "the body is not a request of the V2 protocol"),
        ([{"name": "hour"}], "Field required"),
        ([tensor(), tensor()], "there are two tensors 'hour'"),
        ([tensor(data=[1, [2]])], SHAPE),
        ([tensor(data=[1])], SHAPE),
        ([tensor(shape=[1, 2])], SHAPE),
        ([tensor(shape=[0], data=[])], SHAPE),
        ([tensor(), tensor(name="amount", shape=[1], data=[1])], SHAPE),
        ([tensor(shape=[1 << 40])], "a request has at most 10000 rows"),
        ([tensor(datatype="BOOL", data=[True, False])], "'hour' must be an integer, got True"),
        ([tensor(datatype="FP32", data=[1.5, 2])], "row 0: 'hour' must be an integer, got 1.5"),
        ([tensor(data=[1, None])], "row 1: 'hour' is required"),
        ([tensor(), tensor(name="key", data=[1, "a"])], "tensor 'key' has texts and integers"),
        ([tensor(name="\ud800")], "the body is not a request of the V2 protocol"),
    ],
)
def test_v2(server: Server, inputs: Any, message: str) -> None:
    content = json.dumps({"inputs": inputs})
    found = server.client.post(V2, content=content)
    assert found.status_code == 400, found.text
    assert message in found.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("post", f"/v1/models/{MODEL}/versions/{'9' * 5000}:predict", 404, "Versions: 1, 2, 3"),
        ("get", f"/v2/models/{MODEL}/versions/candidate/ready", 404, "Labels: champion, previous"),
        ("post", "/v1/models/other:predict", 404, f"'other' here, only '{MODEL}'"),
        ("get", f"/v2/models/{MODEL}/versions/5", 503, "version 5 of 'shop-model' cannot be"),
        ("post", f"/v2/repository/models/{MODEL}/unload", 404, ""),
    ],
)
def test_what_is_not_there(server: Server, method: str, path: str, status: int, words: str) -> None:
    found = server.client.request(method, path)
    assert found.status_code == status
    assert words in found.json()["error"]
    assert server.predict([{"hour": 1}]).status_code == 200


def infer(version: str = "", **changes: Any) -> pb.ModelInferRequest:
    hour = {"name": "hour", "shape": [1], "datatype": "INT64", **changes}
    hour.setdefault("contents", {"int64_contents": [1]})
    return pb.ModelInferRequest(model_name=MODEL, model_version=version, inputs=[hour])


BREAKING = infer()
BREAKING.inputs.add(name="amount", shape=[1], datatype="FP32").contents.fp32_contents.append(BREAKS)


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (infer("9"), "NOT_FOUND", "no version or label '9'. Versions: 1, 2, 3, 4, 5. "),
        (infer("5"), "UNAVAILABLE", "version 5 of"),
        (infer(datatype="INT65"), "INVALID_ARGUMENT", "invalid"),
        (infer(shape=[2]), "INVALID_ARGUMENT", SHAPE),
        (infer(name="amount"), "INVALID_ARGUMENT", "'hour' is required"),
        (infer(name="x" * (1 << 20)), "RESOURCE_EXHAUSTED", ""),
        (BREAKING, "INTERNAL", "version 3 of "),
    ],
)
def test_grpc(stub: Any, request_: pb.ModelInferRequest, code: str, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request_)
    assert caught.value.code() is grpc.StatusCode[code]
    assert message in caught.value.details()


def test_what_a_caller_did_wrong_is_not_logged(server: Server, stub: Any) -> None:
    logged, secret = len(server.log()), "a-name-that-must-not-be-logged"
    server.predict([{"hour": secret}])
    server.infer([tensor(data=[secret, secret])])
    server.predict([{"hour": 1, "shop": secret}])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"\xff\xff\xff no protobuf")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
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
_PARAMETERS = st.dictionaries(st.sampled_from(["binary_data_size", "x"]), _VALUES, max_size=2)
_KINDS = st.sampled_from(["INT64", "INT8", "FP32", "FP16", "BYTES", "UINT8", "BOOL", "x"])
_TENSORS = st.lists(
    st.fixed_dictionaries(
        {"name": _NAMES, "shape": st.lists(st.integers(-1, 3), max_size=3), "datatype": _KINDS},
        optional={"data": st.lists(_VALUES, max_size=3) | _VALUES, "parameters": _PARAMETERS},
    )
    | _VALUES,
    max_size=4,
)
_MORE = {
    "id": _VALUES,
    "outputs": st.lists(st.fixed_dictionaries({"name": _VALUES, "parameters": _VALUES})) | _VALUES,
    "parameters": st.fixed_dictionaries({"binary_data_output": _VALUES}) | _VALUES,
}
_CASES = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_CASES
@given(
    body=st.fixed_dictionaries({"instances": _ROWS | _VALUES})
    | st.fixed_dictionaries({"inputs": _TENSORS | _VALUES}, optional=_MORE)
    | _VALUES,
    v2=st.booleans(),
    raw=st.none() | st.binary(max_size=40),
)
def test_no_body_is_the_servers_error(
    server: Server, body: Any, v2: bool, raw: bytes | None
) -> None:
    content, headers = json.dumps(body).encode(), {}
    if raw is not None:
        headers = {"inference-header-content-length": str(len(content))}
        content += raw
    found = server.client.post(V2 if v2 else V1, content=content, headers=headers)
    assert found.status_code in (200, 400), (content, found.text)
    assert found.json()


@_CASES
@given(
    tensors=st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["amount", "hour", "shop", "key"]) | st.text(max_size=3),
                "datatype": _KINDS,
                "shape": st.lists(st.integers(-1, 3), max_size=3),
            }
        ),
        max_size=4,
    ),
    raw=st.lists(st.binary(max_size=24), max_size=4),
    names=st.lists(st.sampled_from(["predictions", "key", "x"]), max_size=2),
)
def test_no_message_is_the_servers_error(
    stub: Any, tensors: list[Any], raw: list[bytes], names: list[str]
) -> None:
    outputs = [{"name": name} for name in names]
    message = pb.ModelInferRequest(
        model_name=MODEL, inputs=tensors, raw_input_contents=raw, outputs=outputs
    )
    try:
        stub.ModelInfer(message)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()


def test_a_body_that_is_too_large_is_refused_before_and_while_it_comes(server: Server) -> None:
    head = f"POST {V2} HTTP/1.1\r\nhost: x\r\n"
    address = ("127.0.0.1", server.http_port)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(f"{head}content-length: {2 << 20}\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"error":"the body is larger than 1 MiB"}')
    chunk, sent = b"10000\r\n" + b" " * (1 << 16) + b"\r\n", 0
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(OSError):  # the server hangs up
            while sent < 1 << 30:
                connection.sendall(chunk)
                sent += len(chunk)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
    assert sent < 1 << 26
    assert server.predict([{"hour": 1, "shop": "x" * 1000}] * 900).status_code == 200


@pytest.fixture(scope="module")
def impatient(registry: Path) -> Iterator[Server]:
    server = Server(registry, receive_seconds=1)
    yield server
    assert server.stop() == 0


@pytest.mark.prove
@pytest.mark.parametrize(
    "sent",
    [
        "",
        "POST /v1/mod",
        f'POST {V1} HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{{"insta',
        "GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\nPOST /v1",
    ],
)
def test_half_a_request_does_not_keep_a_connection(impatient: Server, sent: str) -> None:
    address = ("127.0.0.1", impatient.http_port)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(sent.encode())
        answer = connection.makefile("rb").read()  # until the server closes
    assert answer.startswith(b"HTTP/1.1 408 ") == ("content-length" in sent)
    assert impatient.client.get("/v2/health/live").status_code == 200
