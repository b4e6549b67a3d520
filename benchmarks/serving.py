"""`make bench-serving`: latencies of the online server, with and without batching.

    python -m benchmarks.serving             # about two minutes
    python -m benchmarks.serving --seconds 5 # longer at each point

Serves the champion of the configuration `automated` and asks it from a process of its own, on
connections that stay open; server and clients share this machine's processors. Milliseconds of a
request, from sending it to having its answer: "alone" with max_batch_rows 1, beside it as
configured. In process: the same rows checked and predicted without a server. Rows are made up from
the signature.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measuring import CONFIG, ChildFailed, alone, bench
from components.registry import signature, store
from pipeline import loading
from pipeline.workspace import Workspace

Rows = list[dict[str, Any]]


def main() -> None:
    """Measures and tells."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="at each point")
    seconds: float = parser.parse_args().seconds
    config = loading.load(CONFIG)
    model = config.registry.model
    folder = str(Workspace(loading.PROJECT / config.workspace).registry / model)
    champion = store.read_labels(folder).get(store.CHAMPION)
    if champion is None:
        raise SystemExit(f"There is no champion. Make one with: make run-local CONFIG={CONFIG}")
    described = signature.of(store.read_manifest(folder, champion))
    lines: list[list[object]] = []
    with bench("serving") as made:
        for count in (1, 128):
            step = partial(in_process, folder, _made_up(described, count), seconds)
            lines.append([f"in process, {count} rows, 1 at once", *[None] * 2, *alone(step).result])
        with _server("serving.max_batch_rows=1") as by_itself, _server() as batching:
            for ask in (by_rest, by_grpc):
                for count, clients in ((1, 1), (1, 32), (128, 8)):
                    what = f"{ask.__name__[3:]}, {count} rows, {clients} at once"
                    rows = _made_up(described, count)
                    with made.step(what):
                        own, found = (
                            alone(partial(asked, ask, at, model, rows, clients, seconds)).result
                            for at in (by_itself, batching)
                        )
                    lines.append([what, *own[:2], *found])
        heading = ("p50 alone", "p99 alone", "p50", "p99", "requests/s")
        made.tell("\nprotocol", *heading, rows=lines)
        made.figures["milliseconds"] = lines


def _summed_up(spent: list[float], seconds: float) -> list[float]:
    p50, p99 = (1000 * float(np.percentile(spent, percent)) for percent in (50, 99))
    return [p50, p99, len(spent) / seconds]


def _made_up(described: signature.Signature, count: int) -> Rows:
    chance = random.Random(count)
    values: dict[str, Callable[[], Any]] = {
        "FLOAT": lambda: round(chance.lognormvariate(1, 1), 2),
        "INT": lambda: chance.randrange(24),
        "BYTES": lambda: f"category {chance.randrange(100)}",
    }
    inputs = described["inputs"].items()
    return [{name: values[column["type"]]() for name, column in inputs} for _ in range(count)]


@contextmanager
def _server(*overrides: str) -> Iterator[tuple[str, str]]:
    """A server by the project's own command, on free ports: its HTTP and gRPC addresses."""
    sets = [f"--set={o}" for o in ("serving.http_port=0", "serving.grpc_port=0", *overrides)]
    command = [sys.executable, "-m", "pipeline", "serve", "--config", CONFIG, *sets]
    with subprocess.Popen(
        command, cwd=loading.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        while "curl" not in said:
            line = process.stdout.readline()
            if not line:
                raise ChildFailed(f"{' '.join(command)} did not start.")
            said += line
        http, grpc = re.findall(r"(127\.0\.0\.1:\d+)  ", said)
        yield http, grpc
        process.terminate()


def in_process(folder: str, rows: Rows, seconds: float) -> Callable[[], list[float]]:
    """Ready to check and predict rows for some time."""
    from components.inference.columns import from_rows
    from components.inference.model import LoadedVersion, choose

    loaded = LoadedVersion(choose(folder))

    async def ask() -> None:
        loaded.predict(from_rows(loaded.signature, rows))

    return lambda: _summed_up(asyncio.run(_timed(ask, seconds)), seconds)


async def _timed(ask: Callable[[], Awaitable[None]], seconds: float) -> list[float]:
    """The seconds of each request, one after the other without a pause."""
    spent = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        await ask()
        spent.append(time.perf_counter() - began)
    return spent


def asked(
    ask: Callable[..., Any],
    addresses: tuple[str, str],
    model: str,
    rows: Rows,
    clients: int,
    seconds: float,
) -> Callable[[], list[float]]:
    """Ready to ask a server from several clients; the first fifth of a second does not count."""

    async def all_of_them() -> list[float]:
        await asyncio.gather(*(ask(addresses, model, rows, 0.2) for _ in range(clients)))
        each = await asyncio.gather(*(ask(addresses, model, rows, seconds) for _ in range(clients)))
        return _summed_up([spent for one in each for spent in one], seconds)

    return lambda: asyncio.run(all_of_them())


async def by_rest(
    addresses: tuple[str, str], model: str, rows: Rows, seconds: float
) -> list[float]:
    """Asks on one connection, with as little work of its own as can be."""
    body = json.dumps({"instances": rows}).encode()
    head = f"POST /v1/models/{model}:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
    host, _, port = addresses[0].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async def ask() -> None:
        writer.write(f"{head}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.findall(rb"content-length: (\d+)", answer)[0]))
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode())

    spent = await _timed(ask, seconds)
    writer.close()
    return spent


async def by_grpc(
    addresses: tuple[str, str], model: str, rows: Rows, seconds: float
) -> list[float]:
    """The same by gRPC, a tensor for each column."""
    from grpc import aio
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

    kinds = {float: ("FP32", "fp32"), int: ("INT64", "int64"), str: ("BYTES", "bytes")}
    request = pb.ModelInferRequest(model_name=model)
    for name, value in rows[0].items():
        datatype, kind = kinds[type(value)]
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
        values = [row[name].encode() if kind == "bytes" else row[name] for row in rows]
        getattr(tensor.contents, f"{kind}_contents").extend(values)
    # Else all clients of this process would share one connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.insecure_channel(addresses[1], options) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        return await _timed(lambda: stub.ModelInfer(request), seconds)


if __name__ == "__main__":
    main()
