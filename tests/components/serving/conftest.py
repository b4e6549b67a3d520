"""One server for all tests that only ask it something."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

from tests.components.serving import servers
from tests.components.serving.servers import MODEL, Server


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Champion 3, previous 2; 1 and 4 without a label; 4's classes have names; 5 is damaged."""
    folder = tmp_path_factory.mktemp("workspace") / "registry" / MODEL
    for version in range(1, 6):
        servers.add(folder, version, ["evening", "noon"] if version == 4 else None)
    for version in (2, 3):
        servers.promote(folder, version)
    (folder / "5" / "saved_model.pb").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="session")
def server(registry: Path) -> Iterator[Server]:
    """A server of that registry, with bodies of at most a MiB."""
    running = Server(registry, max_body_mib=1)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def stub(server: Server) -> Iterator[Any]:
    """A client of its gRPC service."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield stubs.GRPCInferenceServiceStub(channel)
