"""A worker of Beam, as the boot program of Beam's images makes one: here without a container.

`pipeline/flink/boot` starts it, with the addresses of its runner. Nothing that a client staged is
fetched: the project and its libraries are here.
"""

import argparse
import os
import tempfile
from typing import Any

import grpc
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format


def main() -> None:
    """Asks the runner for the pipeline's options, and works for it until it is told to end."""
    flags = argparse.ArgumentParser()
    for name in ("id", "logging_endpoint", "provision_endpoint", "control_endpoint"):
        flags.add_argument(f"--{name}", default="")
    given, _ = flags.parse_known_args()
    stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(
        grpc.insecure_channel(given.provision_endpoint)
    )
    request = beam_provision_api_pb2.GetProvisionInfoRequest()
    info = stub.GetProvisionInfo(request, metadata=[("worker_id", given.id)]).info
    os.environ |= {
        "WORKER_ID": given.id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "LOGGING_API_SERVICE_DESCRIPTOR": _url(given.logging_endpoint, info.logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": _url(given.control_endpoint, info.control_endpoint),
        "SEMI_PERSISTENT_DIRECTORY": tempfile.mkdtemp(prefix="beam-"),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    sdk_worker_main.main([])


def _url(given: str, own: Any) -> str:
    chosen = own if own.url else endpoints_pb2.ApiServiceDescriptor(url=given)
    return str(text_format.MessageToString(chosen))


if __name__ == "__main__":
    main()
