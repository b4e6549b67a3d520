"""`make bench-serving`: latencies of the online server, with and without batching.

    python -m benchmarks.serving             # about two minutes
    python -m benchmarks.serving --seconds 5 # longer at each point

Serves the champion of the configuration `automated` and asks it from a process of its own, on
connections that stay open. Prints a table, and writes it to
workspace/reports/benchmark-serving.json.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from benchmarks import report
from components.registry import signature, store
from pipeline import loading
from pipeline.telling import shown, table
from pipeline.workspace import Workspace

_ROWS, _CLIENTS, _ROUNDS = (1, 128), (1, 8, 32), 3
NOTES = """\
Milliseconds of a request, from sending it to having its answer. The columns: each request
predicted by itself (max_batch_rows 1), then as configured. Both servers run, and are asked in
turns; server and clients share this machine's processors. In process: rows checked and predicted
by the same code, without a server. Rows are made up from the signature; none is like another."""


class Address(NamedTuple):
    """Where a server listens."""

    http: int
    grpc: int


class Latencies(NamedTuple):
    """Of many requests, in milliseconds."""

    p50: float
    p99: float
    per_second: float


def main() -> int:
    """Measures and tells; the exit code comes back."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of three rounds")
    seconds: float = parser.parse_args().seconds
    console = Console(highlight=False, soft_wrap=True)
    config = loading.load("automated")
    workspace = Workspace(loading.PROJECT / config.workspace)
    folder = str(workspace.registry / config.registry.model)
    champion = store.read_labels(folder).get(store.CHAMPION)
    if champion is None:
        console.print("There is no champion. Make one with: make run-local CONFIG=automated")
        return 1
    processors, load = os.cpu_count(), os.getloadavg()[0]
    console.print(f"{processors} processors, load {load:.1f}; {config.registry.model} {champion}")
    if load > report.BUSY:
        console.print("[yellow]The machine is busy with something else: times will mislead.[/]")
    figures = _measure(folder, champion, seconds)
    _print(figures, console)
    path = workspace.reports / "benchmark-serving.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"processors": processors, "load": load, **figures}, indent=2))
    console.print(f"\nAll figures: {shown(path)}")
    return 0


def _measure(folder: str, champion: int, seconds: float) -> dict[str, Any]:
    described = signature.of(store.read_manifest(folder, champion))
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        clients = stack.enter_context(ProcessPoolExecutor(1, spawn))
        tables = {rows: _made_up(described, rows) for rows in _ROWS}
        for rows, made in tables.items():
            found[f"in process, {rows}"] = clients.submit(_in_process, folder, made).result()
        alone = stack.enter_context(_server("serving.max_batch_rows=1"))
        batching = stack.enter_context(_server())
        for ask in (_by_rest, _by_grpc):
            for rows, made in tables.items():
                for count in _CLIENTS:
                    what = f"{ask.__name__.removeprefix('_by_')}, {rows}, {count}"
                    timed: dict[Address, list[float]] = {alone: [], batching: []}
                    for _ in range(_ROUNDS):
                        for address in timed:
                            work = clients.submit(_ask, ask, address, made, count, seconds)
                            timed[address] += work.result()
                    whole = _ROUNDS * seconds
                    found[what] = [_summed_up(spent, whole) for spent in timed.values()]
    return found


def _summed_up(spent: list[float], seconds: float) -> Latencies:
    p50, p99 = (1000 * float(np.percentile(spent, percent)) for percent in (50, 99))
    return Latencies(p50, p99, len(spent) / seconds)


def _made_up(described: signature.Signature, count: int) -> list[dict[str, Any]]:
    chance = random.Random(count)
    values: dict[str, Callable[[], Any]] = {
        "FLOAT": lambda: round(chance.lognormvariate(1, 1), 2),
        "INT": lambda: chance.randrange(24),
        "BYTES": lambda: f"category {chance.randrange(100)}",
    }
    inputs = described["inputs"].items()
    return [{name: values[column["type"]]() for name, column in inputs} for _ in range(count)]


@contextmanager
def _server(*overrides: str) -> Iterator[Address]:
    """A server by the project's own command, on free ports."""
    sets = [f"--set={o}" for o in ("serving.http_port=0", "serving.grpc_port=0", *overrides)]
    command = [sys.executable, "-m", "pipeline", "serve", "--config", "automated", *sets]
    with subprocess.Popen(
        command, cwd=loading.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        while "curl" not in said:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command)} did not start")
            said += line
        http, grpc = re.findall(r"127\.0\.0\.1:(\d+)  ", said)
        yield Address(int(http), int(grpc))
        process.terminate()


def _in_process(folder: str, rows: list[dict[str, Any]]) -> Latencies:
    from components.inference.columns import from_rows
    from components.inference.model import LoadedVersion, choose

    loaded = LoadedVersion(choose(folder))
    spent = []
    until = time.perf_counter() + 2
    while (began := time.perf_counter()) < until:
        loaded.predict(from_rows(loaded.signature, rows))
        spent.append(time.perf_counter() - began)
    return _summed_up(spent, 2)


Ask = Callable[[Address, list[dict[str, Any]], float], Awaitable[list[float]]]


def _ask(
    ask: Ask, address: Address, rows: list[dict[str, Any]], clients: int, seconds: float
) -> list[float]:
    """The seconds that each request took; the first fifth of a second does not count."""

    async def all_of_them() -> list[float]:
        await asyncio.gather(*(ask(address, rows, 0.2) for _ in range(clients)))
        found = await asyncio.gather(*(ask(address, rows, seconds) for _ in range(clients)))
        return [spent for one in found for spent in one]

    return asyncio.run(all_of_them())


async def _by_rest(address: Address, rows: list[dict[str, Any]], seconds: float) -> list[float]:
    """Asks on one connection without a pause, with as little work of its own as can be."""
    body = json.dumps({"instances": rows}).encode()
    model = loading.load("automated").registry.model
    head = f"POST /v1/models/{model}:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
    reader, writer = await asyncio.open_connection("127.0.0.1", address.http)
    spent = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        writer.write(f"{head}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.findall(rb"content-length: (\d+)", answer)[0]))
        spent.append(time.perf_counter() - began)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode())
    writer.close()
    return spent


async def _by_grpc(address: Address, rows: list[dict[str, Any]], seconds: float) -> list[float]:
    """The same by gRPC, a tensor for each column."""
    from grpc import aio
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

    kinds = {float: ("FP32", "fp32"), int: ("INT64", "int64"), str: ("BYTES", "bytes")}
    request = pb.ModelInferRequest(model_name=loading.load("automated").registry.model)
    for name, value in rows[0].items():
        datatype, kind = kinds[type(value)]
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
        values = [row[name].encode() if kind == "bytes" else row[name] for row in rows]
        getattr(tensor.contents, f"{kind}_contents").extend(values)
    spent = []
    # Else all clients of this process would share one connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.insecure_channel(f"127.0.0.1:{address.grpc}", options) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            await stub.ModelInfer(request)
            spent.append(time.perf_counter() - began)
    return spent


def _print(figures: dict[str, Any], console: Console) -> None:
    lines = table(
        "\nprotocol, rows, clients", "p50 alone", "p99 alone", "p50", "p99", "requests/s", "ratio"
    )
    for what, found in figures.items():
        if isinstance(found, Latencies):
            lines.add_row(what, f"{found.p50:.2f}", f"{found.p99:.2f}", "", "", "", "")
            continue
        alone, batching = found
        times = [alone.p50, alone.p99, batching.p50, batching.p99]
        cells = [*(f"{value:.2f}" for value in times), f"{batching.per_second:,.0f}"]
        lines.add_row(what, *cells, f"{batching.per_second / alone.per_second:.2f}")
    console.print(lines)
    console.print(f"\nratio: requests a second, batching to alone.\n{NOTES}", style="dim")


if __name__ == "__main__":
    raise SystemExit(main())
