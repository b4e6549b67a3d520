"""Starting and ending: what is said, and that what came is answered and logged."""

import json
import signal
import socket
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.errors import PipelineStop
from components.serving import run
from components.serving.settings import Serving
from tests.components.serving import servers
from tests.components.serving.servers import MODEL, Server, expected, until

ROW = {"hour": 1}


def test_what_came_before_the_end_is_answered_and_logged(tmp_path: Path) -> None:
    registry = tmp_path / "registry" / MODEL
    servers.add(registry, 1)
    servers.promote(registry, 1)
    server = Server(registry)
    server.predict([{**ROW, "key": 7, "shop": "a"}, {**ROW, "key": "b"}])
    assert server.metric("prediction_log_rows_dropped") == 0
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
        assert answer.read().endswith(f'{{"predictions":[[{expected(1, ROW)}]]}}'.encode())
    assert server.stop() == 0
    assert "Traceback" not in server.log()
    files = (tmp_path / "predictions").rglob("*.parquet")
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    logged = {(r["key"], r["version"], *r["prediction"]) for r in rows}
    shop = expected(1, {**ROW, "shop": "a"})
    assert logged == {("7", 1, shop), ("b", 1, expected(1, ROW)), (None, 1, expected(1, ROW))}


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("setting", ["http_port", "grpc_port"])
def test_a_port_that_is_taken_is_one_sentence(server: Server, registry: Path, setting: str) -> None:
    taken = getattr(server, setting)
    settings = Serving.model_validate({"http_port": 0, "grpc_port": 0, setting: taken})
    with pytest.raises(PipelineStop) as stop:
        run.run(str(registry), "champion", settings, None)
    assert str(stop.value).startswith(f"Cannot listen on port {taken} of 127.0.0.1: ")
    assert str(stop.value).endswith(f"choose another with `--set serving.{setting}=...`.")


def test_only_its_host_is_listened_on(server: Server) -> None:
    for port in (server.http_port, server.grpc_port):
        assert not refuses(port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=30)
