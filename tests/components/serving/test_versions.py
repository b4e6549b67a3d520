"""Versions and labels by path, loaded when they are first asked for."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.components.serving import servers
from tests.components.serving.servers import MODEL, Server, expected, until

ROW = {"hour": 1}
TENSOR = [{"name": "hour", "shape": [1], "datatype": "INT64", "data": [1]}]


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/versions/1", 1),
        ("/versions/4", 4),
        ("/versions/3", 3),
        ("/labels/champion", 3),
        ("/labels/previous", 2),
        ("/versions/previous", 2),
    ],
)
def test_by_path(server: Server, path: str, served: int) -> None:
    found = server.predict([ROW], path)
    assert found.json()["predictions"] == [[expected(served, ROW)]]
    assert found.headers["x-model-version"] == str(served)
    infer = server.infer(TENSOR, path).json()
    assert (infer["model_version"], infer["model_name"]) == (str(served), MODEL)
    assert infer["outputs"][0]["data"] == [expected(served, ROW)]
    get = server.client.get
    assert get(f"/v2/models/{MODEL}{path}").json()["versions"] == [str(served)]
    assert get(f"/v2/models/{MODEL}{path}/ready").json()["ready"]
    assert get(f"/v1/models/{MODEL}{path}").json()["ready"]


@pytest.mark.parametrize("wanted", ["9", "candidate", "9" * 5000, "0x1", "²", "a b"])
def test_what_is_not_there_is_not_found(server: Server, wanted: str) -> None:
    for found in (
        server.predict([ROW], f"/versions/{wanted}"),
        server.infer(TENSOR, f"/versions/{wanted}"),
        server.client.get(f"/v2/models/{MODEL}/versions/{wanted}/ready"),
    ):
        assert found.status_code == 404
        assert "Versions: 1, 2, 3, 4, 5. Labels: champion, previous" in found.json()["error"]


def test_another_model_is_not_found(server: Server) -> None:
    found = server.client.post("/v1/models/other:predict", json={"instances": [ROW]})
    assert (found.status_code, found.json()) == (
        404,
        {"error": f"there is no model 'other' here, only '{MODEL}'"},
    )


def test_a_damaged_version_is_told_and_logged_and_hurts_nobody(server: Server) -> None:
    found = server.predict([ROW], "/versions/5")
    assert (found.status_code, found.json()) == (
        503,
        {"error": f"version 5 of '{MODEL}' cannot be loaded; the server's log says why"},
    )
    assert f"Version 5 of {MODEL} cannot be loaded" in server.log()
    assert server.predict([ROW]).status_code == 200
    assert server.client.get("/v2/health/ready").status_code == 200


def test_a_version_is_loaded_once_however_many_ask_first(tmp_path: Path) -> None:
    registry = tmp_path / "registry" / MODEL
    for version in range(1, 6):
        servers.add(registry, version)
    server = Server(registry, wanted="2")  # there is no champion yet

    def ask(version: int) -> list[float]:
        found = server.predict([ROW], f"/versions/{version}").json()
        return [value for values in found["predictions"] for value in values]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, [1] * 8)) == [[expected(1, ROW)]] * 8
    assert server.log().count("Loaded version 1 ") == 1
    for version in (3, 4, 5, 1):  # 1 had to make room
        assert ask(version) == [expected(version, ROW)]
    assert server.log().count("Loaded version 1 ") == 2
    # What was asked for at the start stays the default, whatever becomes champion.
    servers.promote(registry, 3)
    until(lambda: server.metric("serving_label_version", label="champion") == 3)
    assert server.predict([ROW]).json() == {"predictions": [[expected(2, ROW)]]}
    assert server.stop() == 0
