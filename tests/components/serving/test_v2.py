"""The V2 protocol (Open Inference Protocol) by REST and gRPC, with KServe's own clients."""

import asyncio
import itertools
import json
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    InferResponse,
    RESTConfig,
)
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

from tests.components.serving.servers import BREAKS, MODEL, Server, expected

INPUTS = [
    {"name": "amount", "shape": [2], "datatype": "FP32", "data": [1.5, None]},
    {"name": "hour", "shape": [2, 1], "datatype": "INT64", "data": [[3], [4]]},
    {"name": "shop", "shape": [2], "datatype": "BYTES", "data": ["ü", ""]},
]
PREDICTED = [expected(3, {"amount": 1.5, "hour": 3, "shop": "ü"}), expected(3, {"hour": 4})]


@pytest.fixture
def stub(server: Server) -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield stubs.GRPCInferenceServiceStub(channel)


def arrays(dtype: Any = np.float32, hours: Any = np.int64) -> dict[str, np.ndarray]:
    return {
        "amount": np.array([1.5, np.nan], dtype),
        "hour": np.array([[3], [4]], hours),
        "shop": np.array(["ü".encode(), b""], np.object_),
    }


def inputs(columns: dict[str, np.ndarray], binary: bool) -> list[InferInput]:
    names = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES"}
    made = []
    for name, values in columns.items():
        datatype = names.get(str(values.dtype), str(values.dtype).upper())
        tensor = InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        made.append(tensor)
    return made


def by_rest(server: Server, request: InferRequest) -> InferResponse:
    async def ask() -> InferResponse:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        try:
            return await client.infer(server.url, request, model_name=MODEL)
        finally:
            await client.close()

    return asyncio.run(ask())


def by_grpc(server: Server, request: InferRequest) -> InferResponse:
    async def ask() -> InferResponse:
        client = InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}")
        try:
            return await client.infer(request)
        finally:
            await client.close()

    return asyncio.run(ask())


def outputs(response: InferResponse) -> dict[str, Any]:
    return {output.name: output.as_numpy().tolist() for output in response.outputs}


def test_a_tensor_for_each_column(server: Server) -> None:
    found = server.infer(INPUTS, id="request 7")
    assert found.status_code == 200
    body = found.json()
    assert (body["id"], body["model_name"], body["model_version"]) == ("request 7", MODEL, "3")
    assert [(o["name"], o["datatype"], o["shape"]) for o in body["outputs"]] == [
        ("predictions", "FP32", [2, 1])
    ]
    assert body["outputs"][0]["data"] == PREDICTED
    assert found.headers["x-model-version"] == "3"


@pytest.mark.parametrize("ask", [by_rest, by_grpc])
@pytest.mark.parametrize(
    ("binary", "dtype"),  # KServe takes FP16 in raw tensors only
    [(True, np.float16), *itertools.product([True, False], [np.float32, np.float64])],
)
@pytest.mark.parametrize("hours", [np.int8, np.uint16, np.int64, np.float32])
def test_numbers_of_every_width(
    server: Server, ask: Any, binary: bool, dtype: Any, hours: Any
) -> None:
    columns = arrays(dtype, hours)
    if not binary:  # JSON has no NaN
        columns["amount"][1] = 0.5
    response = ask(server, InferRequest(MODEL, inputs(columns, binary)))
    assert outputs(response) == {"predictions": [[value] for value in PREDICTED]}


@pytest.mark.parametrize("ask", [by_rest, by_grpc])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("keys", [["b", "a"], [7, -(1 << 62)]])
def test_keys_come_back(server: Server, ask: Any, binary: bool, keys: list[Any]) -> None:
    columns = arrays()
    columns["amount"][1] = 0.5
    texts = isinstance(keys[0], str)
    columns["key"] = np.array(keys, np.object_ if texts else np.int64)
    found = outputs(ask(server, InferRequest(MODEL, inputs(columns, binary))))
    told = [key.decode() if isinstance(key, bytes) else key for key in found["key"]]
    assert (told, found["predictions"]) == (keys, [[value] for value in PREDICTED])


@pytest.mark.parametrize("binary", [True, False])
def test_answers_name_the_classes(server: Server, stub: Any, binary: bool) -> None:
    columns = {"amount": np.float32([-40_000] * 2), "hour": np.array([1, 0])}
    by_path = server.infer(
        [
            {"name": name, "shape": [2], "datatype": datatype, "data": columns[name].tolist()}
            for name, datatype in (("amount", "FP32"), ("hour", "INT64"))
        ],
        "/versions/4",
    ).json()["outputs"]
    assert [(o["name"], o["data"]) for o in by_path] == [
        ("predictions", [1.0, 0.0]),
        ("label", ["noon", "evening"]),
    ]
    assert json.loads(by_path[0]["parameters"]["classes"]) == ["evening", "noon"]
    request = InferRequest(MODEL, inputs(columns, binary), model_version="4")
    found = by_grpc(server, request)
    assert outputs(found)["label"] == [b"noon", b"evening"]
    classes = found.outputs[0].parameters["classes"].string_param
    assert json.loads(classes) == ["evening", "noon"]
    described = stub.ModelMetadata(pb.ModelMetadataRequest(name=MODEL, version="4"))
    assert [(t.name, t.datatype) for t in described.outputs] == [
        ("predictions", "FP32"),
        ("label", "BYTES"),
    ]


def test_only_the_outputs_that_are_wanted(server: Server) -> None:
    key = {"name": "key", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
    found = server.infer([*INPUTS, key], outputs=[{"name": "key"}]).json()
    assert [(o["name"], o["data"]) for o in found["outputs"]] == [("key", ["a", "b"])]


def test_metadata_is_the_signature(server: Server, stub: Any) -> None:
    tensors = [("amount", "FP32", [-1]), ("hour", "INT64", [-1]), ("shop", "BYTES", [-1])]
    body = server.client.get(f"/v2/models/{MODEL}").json()
    assert [tuple(tensor.values()) for tensor in body["inputs"]] == tensors
    assert body["outputs"] == [{"name": "predictions", "datatype": "FP32", "shape": [-1, 1]}]
    assert (body["name"], body["versions"]) == (MODEL, ["3"])
    found = stub.ModelMetadata(pb.ModelMetadataRequest(name=MODEL, version="previous"))
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == tensors
    assert (found.name, list(found.versions)) == (MODEL, ["2"])


def test_health(server: Server, stub: Any) -> None:
    get = server.client.get
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert get(f"/v2/models/{MODEL}/ready").json() == {"name": MODEL, "ready": True}
    assert get(f"/v1/models/{MODEL}").json() == {"name": MODEL, "ready": True}
    assert MODEL in get("/v1/models").json()["models"]
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name=MODEL, version="1")).ready


def test_a_stranger_cannot_unload_the_model(server: Server, stub: Any) -> None:
    for verb in ("load", "unload"):
        assert server.client.post(f"/v2/repository/models/{MODEL}/{verb}").status_code == 501
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=MODEL))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert server.infer(INPUTS).status_code == 200


def infer_request(version: str = "", model: str = MODEL, **changes: Any) -> pb.ModelInferRequest:
    tensor = {"name": "hour", "shape": [1], "datatype": "INT64", **changes}
    tensor.setdefault("contents", {"int64_contents": [1]})
    return pb.ModelInferRequest(model_name=model, model_version=version, inputs=[tensor])


@pytest.mark.parametrize(
    ("version", "served"), [("", 3), ("champion", 3), ("previous", 2), ("2", 2), ("1", 1)]
)
def test_grpc_names_a_version_or_label(
    server: Server, stub: Any, version: str, served: int
) -> None:
    found = stub.ModelInfer(infer_request(version))
    assert (found.model_name, found.model_version) == (MODEL, str(served))
    assert list(found.outputs[0].contents.fp32_contents) == [expected(served, {"hour": 1})]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (infer_request("9"), "NOT_FOUND", "no version or label '9'. Versions: 1, 2, 3, 4, 5. "),
        (infer_request(model="other"), "NOT_FOUND", f"only '{MODEL}'"),
        (infer_request("5"), "UNAVAILABLE", "version 5 of"),
        (infer_request(datatype="INT65"), "INVALID_ARGUMENT", "unknown datatype 'INT65'"),
        (infer_request(shape=[2]), "INVALID_ARGUMENT", "does not fit the shape [2]"),
        (infer_request(name="amount"), "INVALID_ARGUMENT", "'hour' is required"),
        (
            infer_request(datatype="BYTES", contents={"bytes_contents": [b"x"]}),
            "INVALID_ARGUMENT",
            "tensor 'hour' must be INT8 or",
        ),
        (pb.ModelInferRequest(model_name=MODEL), "INVALID_ARGUMENT", "there are no tensors"),
    ],
)
def test_grpc_says_what_is_wrong(
    server: Server, stub: Any, request_: pb.ModelInferRequest, code: str, message: str
) -> None:
    logged = len(server.log())
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request_)
    assert caught.value.code() is grpc.StatusCode[code]
    assert message in caught.value.details()
    assert "Traceback" not in server.log()[logged:]


def test_grpc_says_that_the_model_failed(stub: Any) -> None:
    request = infer_request()
    request.inputs.add(name="amount", shape=[1], datatype="FP32").contents.fp32_contents[:] = [
        BREAKS
    ]
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details().startswith("version 3 of ")


_CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "int64_contents": st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=3),
        "int_contents": st.lists(st.integers(-128, 127), max_size=3),
        "fp32_contents": st.lists(st.floats(width=32), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=9), max_size=3),
    },
)
_TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["amount", "hour", "shop", "key"]) | st.text(max_size=3),
        "datatype": st.sampled_from(["INT64", "INT8", "FP16", "FP32", "BYTES", "BOOL", "x"]),
        "shape": st.lists(st.integers(-1, 3), max_size=3),
    },
    optional={"contents": _CONTENTS},
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tensors=st.lists(_TENSORS, max_size=4),
    raw=st.lists(st.binary(max_size=24), max_size=4),
    names=st.lists(st.sampled_from(["predictions", "key", "x"]), max_size=2),
)
def test_no_message_is_the_servers_error(
    stub: Any, tensors: list[Any], raw: list[bytes], names: list[str]
) -> None:
    try:
        stub.ModelInfer(
            pb.ModelInferRequest(
                model_name=MODEL,
                inputs=tensors,
                raw_input_contents=raw,
                outputs=[{"name": name} for name in names],
            )
        )
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details()


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x01" * 9, b"\xff\xff\xff\xff"])
@pytest.mark.parametrize("datatype", ["INT64", "FP16", "BYTES"])
def test_raw_bytes_that_do_not_fit(stub: Any, raw: bytes, datatype: str) -> None:
    tensor = {"name": "shop" if datatype == "BYTES" else "hour", "shape": [1]}
    request = pb.ModelInferRequest(
        model_name=MODEL, inputs=[{**tensor, "datatype": datatype}], raw_input_contents=[raw]
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_is_too_large_is_refused(stub: Any) -> None:
    request = infer_request(
        name="shop", datatype="BYTES", contents={"bytes_contents": [b"x" * (1 << 20)]}
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
