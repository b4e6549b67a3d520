"""Small registries for tests, and processes that work on them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from components.registry import store

SIGNATURE: dict[str, Any] = {
    "inputs": {"fare": {"type": "FLOAT", "required": False}},
    "ignored": [],
    "problem": "binary",
    "classes": None,
}


def add(registry: str, model: str, fingerprint: str, **manifest: Any) -> int:
    """Files a model under a fingerprint."""
    filled = {"fingerprint": fingerprint, "signature": SIGNATURE, **manifest}
    return store.add_version(registry, model, filled)


def python(code: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
