"""Starting and ending: what is said, and that what came is answered."""

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.errors import PipelineStop
from components.serving import run
from components.serving.settings import Serving
from tests.components.serving import servers
from tests.components.serving.servers import MODEL, Server, expected, until

ROW = {"hour": 1}


def test_what_came_before_the_end_is_answered(registry: Path) -> None:
    server = Server(registry)
    body = json.dumps({"instances": [ROW]}).encode()
    head = (
        f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=30) as connection:
        connection.sendall(head.encode())
        answer = connection.makefile("rb")
        assert b"100" in answer.readline()  # so it is being handled
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(server.http_port))
        connection.sendall(body)
        assert answer.read().endswith(f'{{"predictions":[[{expected(3, ROW)}]]}}'.encode())
    assert server.stop() == 0
    assert "Traceback" not in server.log()


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return True
    return False


def test_every_prediction_is_logged_before_it_ends(tmp_path: Path) -> None:
    registry = tmp_path / "registry" / MODEL
    for version in (1, 2, 3):
        servers.add(registry, version)
        servers.promote(registry, version)
    server = Server(registry)
    server.predict([{**ROW, "key": 7, "shop": "a"}, {**ROW, "key": "b"}])
    server.predict([ROW], "/labels/previous")
    assert server.metric("prediction_log_rows_dropped") == 0
    assert server.metric("prediction_log_rows_written") is not None
    assert server.stop(signal.SIGINT) == 0
    rows: list[Any] = []
    for path in sorted(tmp_path.glob("predictions/*/*/*.parquet")):
        rows += pq.read_table(path).to_pylist()
    found = {(row["key"], row["version"], *row["prediction"]) for row in rows}
    assert found == {
        ("7", 3, expected(3, {**ROW, "shop": "a"})),
        ("b", 3, expected(3, ROW)),
        (None, 2, expected(2, ROW)),
    }


@pytest.mark.parametrize("setting", ["http_port", "grpc_port"])
def test_a_port_that_is_taken_is_one_sentence(server: Server, registry: Path, setting: str) -> None:
    taken = getattr(server, setting)
    settings = Serving.model_validate({"http_port": 0, "grpc_port": 0, setting: taken})
    with pytest.raises(PipelineStop) as stop:
        run.run(str(registry), "champion", settings, None)
    assert str(stop.value).startswith(f"Cannot listen on port {taken} of 127.0.0.1: ")
    assert str(stop.value).endswith(f"choose another with `--set serving.{setting}=...`.")
    assert "\n" not in str(stop.value)


def test_only_its_host_is_listened_on(server: Server) -> None:
    for port in (server.http_port, server.grpc_port):
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=30)


def test_without_a_champion_it_says_what_to_type(tmp_path: Path) -> None:
    registry = tmp_path / MODEL
    servers.add(registry, 1)
    with pytest.raises(PipelineStop, match=r"no version or label 'champion'.*Versions: 1"):
        run.run(str(registry), "champion", Serving(), None)
