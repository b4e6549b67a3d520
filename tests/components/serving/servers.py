"""Registries of small models that can be computed by hand, and real servers on free ports."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from components.registry import labels, store
from tests.components.inference import small_versions

MODEL = "shop-model"
SIGNATURE: dict[str, Any] = {
    "inputs": {
        "amount": {"type": "FLOAT", "required": False},
        "hour": {"type": "INT", "required": True},
        "shop": {"type": "BYTES", "required": False},
    },
    "ignored": ["note"],
    "problem": "binary",
    "classes": None,
}
MEMBERS = 4
"""This version's network has several members: a quarter of a prediction is its uncertainty."""


def expected(version: int, row: dict[str, Any]) -> float:
    """What a version of the small model predicts; every number is exact in float32."""
    amount, hour, shop = row.get("amount"), row.get("hour"), row.get("shop") or ""
    value = 10_000 * version + (1.0 if amount is None else amount)
    return value + hour + 100 * len(shop.encode())


def add(registry: Path, version: int, classes: list[str] | None = None) -> None:
    """Files the small model as the next version, which must be this one."""
    signature, members = {**SIGNATURE, "classes": classes}, 2 if version == MEMBERS else 1
    assert small_versions.add(registry, 1.0, 10_000.0 * version, signature, members) == version


def promote(registry: Path, version: int) -> None:
    """Makes a version the champion."""
    champion = store.read_labels(str(registry)).get(store.CHAMPION)
    labels.promote(str(registry), version, labels.Mover("test", "test"), champion)


def roll_back(registry: Path) -> None:
    """Brings the champion before this one back."""
    labels.rollback(str(registry), labels.Mover("test", "test"))


def until(true: Callable[[], Any], seconds: float = 20) -> Any:
    """Waits until something is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


class Server:
    """A server in a process of its own."""

    def __init__(self, registry: Path, wanted: str = "champion", **settings: Any) -> None:
        """Starts `serve` on the workspace that the registry is in; waits until it listens."""
        ours = {"http_port": 0, "grpc_port": 0, "follow_seconds": 0.05, **settings}
        sets = {
            "workspace": registry.parents[1],
            "registry.model": MODEL,
            "prediction_log.enabled": "true",
            **{f"serving.{name}": value for name, value in ours.items()},
        }
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the server)
        command = [sys.executable, "-m", "pipeline", "serve", "--config", "taxi"]
        self.process = subprocess.Popen(
            [*command, "--version", wanted, *(f"--set={n}={v}" for n, v in sets.items())],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = ""
        while "curl" not in self.said:
            line = self.process.stdout.readline()
            assert line, f"the server ended: {self.log()}"
            self.said += line
        self.http_port, self.grpc_port = map(int, re.findall(r"127\.0\.0\.1:(\d+)  ", self.said))
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def predict(self, rows: Any, path: str = "", **more: Any) -> httpx.Response:
        """Asks by V1; the path is what comes after the model's name."""
        body = {"instances": rows, **more}
        return self.client.post(f"/v1/models/{MODEL}{path}:predict", json=body)

    def infer(self, inputs: Any, path: str = "", **more: Any) -> httpx.Response:
        """Asks by V2; the path is what comes after the model's name."""
        return self.client.post(f"/v2/models/{MODEL}{path}/infer", json={"inputs": inputs, **more})

    def metric(self, name: str, **wanted: str) -> float | None:
        """A metric's value."""
        for line in self.client.get("/metrics").text.splitlines():
            found = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if line.startswith((f"{name}{{", f"{name} ")) and wanted.items() <= found.items():
                return float(line.rpartition(" ")[2])
        return None

    def log(self) -> str:
        """What it wrote to its standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it, and returns its exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code
