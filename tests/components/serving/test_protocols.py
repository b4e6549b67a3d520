"""KServe's protocols by REST and gRPC: rows in, predictions out, by version and label."""

import asyncio
import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from typer.testing import CliRunner

from pipeline.cli import app
from tests.components.serving.servers import MODEL, Server, expected

ROWS: list[dict[str, Any]] = [
    {"amount": 1.5, "hour": 7, "shop": "abc"},
    {"hour": 3, "shop": None},
    {"amount": 2, "hour": 4.0, "shop": "never seen, ü", "note": "ignored", "other": [1]},
]
HOUR = {"name": "hour", "shape": [1], "datatype": "INT64", "data": [1]}
KEYS = [7, "seven", -(1 << 63)]
LATE_AND_EARLY = [{"amount": -40_000, "hour": 1}, {"amount": -40_000, "hour": 0}]
"""Version 4 predicts 1 and 0 for them: its classes are evening and noon."""


def test_v1_answers_rows_and_keys_as_tf_serving_does(server: Server) -> None:
    found = server.predict(ROWS, signature_name="raw")
    assert found.json() == {"predictions": [[expected(3, row)] for row in ROWS]}
    assert found.headers["x-model-version"] == "3"
    keyed = [{**row, "key": key} for row, key in zip(ROWS, KEYS, strict=True)]
    assert server.predict(keyed).json() == {
        "predictions": [{"key": row["key"], "predictions": [expected(3, row)]} for row in keyed]
    }
    text = {"content-type": "text/plain"}
    path, body = f"/v1/models/{MODEL}:predict", b'{"instances": [{"hour": 1}]}'
    plain = server.client.post(path, content=body, headers=text)
    assert plain.json() == {"predictions": [[30002.0]]}


def test_the_request_that_is_printed_can_be_typed(server: Server) -> None:
    command = next(line for line in server.said.splitlines() if "curl" in line)
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    row = {"amount": 1.5, "hour": 1, "shop": "text"}
    assert found.stdout == f'{{"predictions":[[{expected(3, row)}]]}}'


def test_v1_names_classes_and_says_how_sure_it_is(server: Server) -> None:
    classes, path = {"classes": ["evening", "noon"]}, "/versions/4"
    found = server.predict(LATE_AND_EARLY, path).json()
    assert found == {"predictions": [[1.0], [0.0]], "labels": ["noon", "evening"], **classes}
    keyed = [{**row, "key": n} for n, row in enumerate(LATE_AND_EARLY)]
    named = [
        {"key": 0, "predictions": [1.0], "label": "noon"},
        {"key": 1, "predictions": [0.0], "label": "evening"},
    ]
    assert server.predict(keyed, path).json() == {"predictions": named, **classes}
    unsure = server.predict(LATE_AND_EARLY, path, signature_name="uncertain").json()
    assert unsure == {
        "predictions": [
            {"predictions": [1.0], "uncertainty": [0.25], "label": "noon"},
            {"predictions": [0.0], "uncertainty": [0.0], "label": "evening"},
        ],
        **classes,
    }
    refused = server.predict(ROWS, signature_name="uncertain")
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": "the network has one member: train with `model.members` above 1"},
    )


def inputs(columns: dict[str, Any], binary: bool) -> list[InferInput]:
    names = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES"}
    made = []
    for name, values in columns.items():
        datatype = names.get(str(values.dtype), str(values.dtype).upper())
        tensor = InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        made.append(tensor)
    return made


def by_client(server: Server, request: InferRequest, grpc: bool) -> dict[str, Any]:
    """What KServe's own client gets, by output."""

    async def ask() -> Any:
        if grpc:
            client: Any = InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}")
            asked = client.infer(request)
        else:
            client = InferenceRESTClient(RESTConfig(protocol="v2"))
            asked = client.infer(server.url, request, model_name=MODEL)
        try:
            return await asked
        finally:
            await client.close()

    return {output.name: output.as_numpy().tolist() for output in asyncio.run(ask()).outputs}


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize(
    ("binary", "amounts", "hours", "keys"),
    [
        (True, np.float16, np.int8, ["b", "ä"]),
        (True, np.float32, np.int64, [7, -(1 << 62)]),
        (False, np.float64, np.uint16, ["b", "a"]),
        (False, np.float32, np.float32, [1, 2]),
    ],
)
def test_v2_takes_numbers_of_every_width(
    server: Server, grpc: bool, binary: bool, amounts: Any, hours: Any, keys: list[Any]
) -> None:
    missing = np.nan if binary else 1.0  # JSON has no NaN
    columns = {
        "amount": np.array([1.5, missing], amounts),
        "hour": np.array([[3], [4]], hours),
        "shop": np.array(["ü".encode(), b""], np.object_),
        "key": np.array(keys, np.object_ if isinstance(keys[0], str) else np.int64),
    }
    found = by_client(server, InferRequest(MODEL, inputs(columns, binary)), grpc)
    rows = [{"amount": 1.5, "hour": 3, "shop": "ü"}, {"hour": 4}]
    assert found["predictions"] == [[expected(3, row)] for row in rows]
    assert [k.decode() if isinstance(k, bytes) else k for k in found["key"]] == keys


def test_v2_names_what_it_answers(server: Server, stub: Any) -> None:
    tensors = [
        {
            "name": name,
            "shape": [2],
            "datatype": kind,
            "data": [row[name] for row in LATE_AND_EARLY],
        }
        for name, kind in (("amount", "FP32"), ("hour", "INT64"))
    ]
    found = server.infer(tensors, "/versions/4", id="request 7").json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("request 7", MODEL, "4")
    assert [(output["name"], output["data"]) for output in found["outputs"]] == [
        ("predictions", [1.0, 0.0]),
        ("label", ["noon", "evening"]),
    ]
    assert json.loads(found["outputs"][0]["parameters"]["classes"]) == ["evening", "noon"]
    asked = [{"name": "uncertainty"}]
    [unsure] = server.infer(tensors, "/versions/4", outputs=asked).json()["outputs"]
    assert (unsure["name"], unsure["shape"], unsure["data"]) == ("uncertainty", [2, 1], [0.25, 0.0])
    request = pb.ModelInferRequest(
        model_name=MODEL,
        model_version="4",
        inputs=[
            {"name": "hour", "shape": [1], "datatype": "INT64", "contents": {"int64_contents": [1]}}
        ],
        outputs=asked,
    )
    [output] = stub.ModelInfer(request).outputs
    assert list(output.contents.fp32_contents) == [expected(4, {"hour": 1}) / 4]
    refused = server.infer([HOUR], outputs=asked)
    assert (refused.status_code, "has one member" in refused.text) == (400, True)


@pytest.mark.parametrize(
    ("path", "version"), [("", 3), ("/versions/1", 1), ("/labels/previous", 2), ("/versions/4", 4)]
)
def test_versions_and_labels_by_path_and_by_grpc(
    server: Server, stub: Any, path: str, version: int
) -> None:
    assert server.predict([{"hour": 1}], path).headers["x-model-version"] == str(version)
    answer = server.infer([HOUR], path).json()
    assert answer["outputs"][0]["data"] == [expected(version, {"hour": 1})]
    get, wanted = server.client.get, path.rpartition("/")[2]
    assert get(f"/v2/models/{MODEL}{path}/ready").json() == {"name": MODEL, "ready": True}
    assert get(f"/v1/models/{MODEL}{path}").json() == {"name": MODEL, "ready": True}
    described = get(f"/v2/models/{MODEL}{path}").json()
    assert (described["name"], described["versions"]) == (MODEL, [str(version)])
    if wanted:
        named = server.predict([{"hour": 1}], f"@{wanted}").json()
        assert named["predictions"] == [[expected(version, {"hour": 1})]]
    found = stub.ModelMetadata(pb.ModelMetadataRequest(name=MODEL, version=wanted))
    assert list(found.versions) == [str(version)]
    for answered in (described["inputs"], found.inputs):
        tensors = [dict(t) if isinstance(t, dict) else tensor(t) for t in answered]
        assert [(t["name"], t["datatype"], t["shape"]) for t in tensors] == [
            ("amount", "FP32", [-1]),
            ("hour", "INT64", [-1]),
            ("shop", "BYTES", [-1]),
        ]
    outputs = ["predictions", "uncertainty", "label"] if version == 4 else ["predictions"]
    assert [output["name"] for output in described["outputs"]] == outputs


def tensor(described: Any) -> dict[str, Any]:
    return {
        "name": described.name,
        "datatype": described.datatype,
        "shape": list(described.shape),
    }


def test_health(server: Server, stub: Any) -> None:
    get = server.client.get
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert {MODEL, f"{MODEL}@champion", f"{MODEL}@3"} <= {*get("/v1/models").json()["models"]}
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name=MODEL, version="1")).ready


def test_bulk_and_online_predictions_are_the_same(
    server: Server, registry: Path, tmp_path: Path
) -> None:
    pytest.importorskip("components.batch_prediction")
    rows = [{"amount": n / 4, "hour": n % 24, "shop": "x" * (n % 5), "key": n} for n in range(40)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    command = ["batch-predict", "--config", "taxi", "--key", "key"]
    command += ["--input", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out")]
    command += [f"--set=workspace={registry.parents[1]}", f"--set=registry.model={MODEL}"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    files = (tmp_path / "out" / "predictions").rglob("*.parquet")
    found = [row for path in files for row in pq.read_table(path).to_pylist()]
    bulk = {row["key"]: row["prediction"] for row in found}
    online = server.predict(rows).json()["predictions"]
    assert bulk == {str(row["key"]): row["predictions"][0] for row in online}
    assert bulk == {str(row["key"]): expected(3, row) for row in rows}
