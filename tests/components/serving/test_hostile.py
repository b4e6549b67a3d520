"""Hostile clients: half of a text, half of a message, half of a request."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.components.serving.servers import MODEL, Server

V2 = f"/v2/models/{MODEL}/infer"


def infer_body(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "hour", "shape": [1], "datatype": "INT64", "data": [1]}
    return {
        "inputs": [{**tensor, **changes.pop("tensor", {})}, *changes.pop("more", [])],
        **changes,
    }


LONE = "\ud800"


@pytest.mark.parametrize(
    "body",
    [
        infer_body(id=LONE),
        infer_body(tensor={"name": LONE}),
        infer_body(tensor={"datatype": LONE}),
        infer_body(tensor={"parameters": {LONE: []}}),
        infer_body(outputs=[{"name": LONE}]),
        infer_body(more=[{"name": LONE, "shape": [1], "datatype": "BYTES", "data": ["x"]}]),
        infer_body(more=[{"name": "key", "shape": [1], "datatype": "BYTES", "data": [LONE]}]),
        infer_body(more=[{"name": "shop", "shape": [1], "datatype": "BYTES", "data": [LONE]}]),
    ],
)
def test_half_of_a_surrogate_pair_is_the_callers_mistake(server: Server, body: Any) -> None:
    logged = len(server.log())
    found = server.client.post(
        V2, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert found.status_code == 400, found.text
    assert found.json()["error"]
    assert server.log()[logged:] == ""


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
def test_bytes_that_are_no_protobuf_are_the_callers_mistake(server: Server, method: str) -> None:
    logged = len(server.log())
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        ask = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"\xff\xff\xff no protobuf")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert method in caught.value.details()
    assert "\n" not in caught.value.details()
    assert server.log()[logged:] == ""


@pytest.fixture(scope="module")
def impatient(registry: Path) -> Iterator[Server]:
    server = Server(registry, receive_seconds=1)
    yield server
    assert server.stop() == 0


V1_HEAD = f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "POST /v1/mod",
        V1_HEAD,
        V1_HEAD + 'content-length: 20\r\n\r\n{"insta',
        "GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n" + V1_HEAD,
    ],
)
def test_half_a_request_does_not_keep_a_connection(impatient: Server, sent: str) -> None:
    address = ("127.0.0.1", impatient.http_port)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(sent.encode())
        answer = connection.makefile("rb").read()  # until the server closes
    if "content-length" in sent:
        assert answer.startswith(b"HTTP/1.1 408 ")
    assert impatient.client.get("/v2/health/live").status_code == 200
