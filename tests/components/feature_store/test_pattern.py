"""The pattern's configuration from nothing: a run, and predictions by key, here and served."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.feature_store.store import Service
from pipeline import parts

CONFIG = "patterns/26-feature-store"
CONFIGS = parts.PROJECT / "configs"

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not (CONFIGS / f"{CONFIG}.yaml").is_file(), reason=f"no {CONFIG}"),
]


def command(workspace: Path, work: str, *more: str) -> dict[str, Any]:
    """What `subprocess` takes to start a command of the pipeline."""
    options = ["--config", CONFIG, "--set", f"workspace={workspace}", *more]
    return {
        "args": [sys.executable, "-m", "pipeline", work, *options],
        "cwd": parts.PROJECT,
        "env": os.environ | {"PIPELINE_CONFIGS": str(CONFIGS)},
        "text": True,
        "stdout": subprocess.PIPE,
    }


def test_a_key_is_enough_in_predict_and_served(tmp_path: Path, config: Callable[..., Any]) -> None:
    done = subprocess.run(**command(tmp_path, "run"))
    assert done.returncode == 0, done.stdout
    assert "filed as version 1" in done.stdout
    repo = tmp_path / "data" / "components.feature_store.example.repository"
    by_key = {"storm": "Nicole 2022"}
    [full] = Service(config(repo=str(repo))).latest([by_key])

    rows = json.dumps([by_key, full, {**full, "wind": full["wind"] + 60}])
    told = subprocess.run(**command(tmp_path, "predict", "--version", "1", rows)).stdout
    key, same, other = json.loads(told)["predictions"]
    assert key == same != other

    if "components.serving" not in parts.present():
        return
    ports = [f"--set=serving.{name}_port=0" for name in ("http", "grpc")]
    with subprocess.Popen(**command(tmp_path, "serve", "--version", "1", *ports)) as server:
        assert server.stdout is not None
        try:
            lines = iter(server.stdout.readline, "")
            address = next(filter(None, (re.search(r"http://\S+", line) for line in lines)))[0]
            url = f"{address}/v1/models/feature-store:predict"
            answer = httpx.post(url, json={"instances": [by_key]})
            assert answer.json()["predictions"] == [key]
            refused = httpx.post(url, json={"instances": [{"storm": "Nobody 2005"}]})
            assert refused.status_code == 400
            assert "has no features of storm 'Nobody 2005'" in refused.json()["error"]
        finally:
            server.terminate()
    assert server.returncode == 0
