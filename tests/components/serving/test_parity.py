"""The server and batch prediction answer alike, and log alike."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.components.serving import servers
from tests.components.serving.servers import MODEL, Server, expected


def test_bulk_and_online_predictions_are_the_same(tmp_path: Path) -> None:
    registry = tmp_path / "registry" / MODEL
    servers.add(registry, 1)
    servers.promote(registry, 1)
    rows = [
        {"id": str(n), "amount": n / 4, "hour": n % 24, "shop": "x" * (n % 5)} for n in range(40)
    ]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    sets = {"workspace": tmp_path, "registry.model": MODEL, "prediction_log.enabled": "true"}
    command = [sys.executable, "-m", "pipeline", "batch-predict", "--config", "taxi"]
    command += ["--input", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out")]
    command += ["--key", "id", *(f"--set={name}={value}" for name, value in sets.items())]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    server = Server(registry)
    online = server.predict(
        [{**{n: row[n] for n in ("amount", "hour", "shop")}, "key": row["id"]} for row in rows]
    ).json()["predictions"]
    assert server.stop() == 0

    bulk = {row["key"]: row["prediction"] for row in read(tmp_path / "out" / "predictions")}
    wanted = {str(row["id"]): expected(1, row) for row in rows}
    assert bulk == wanted == {row["key"]: row["predictions"][0] for row in online}
    logged: dict[str, list[str]] = {}
    for row in read(tmp_path / "predictions"):
        said = [row["version"], row["prediction"], row["features"]]
        logged.setdefault(row["key"], []).append(json.dumps(said))
    assert logged.keys() == wanted.keys()
    assert all(len(pair) == 2 and len({*pair}) == 1 for pair in logged.values())


def read(folder: Path) -> list[dict[str, Any]]:
    return [row for path in folder.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
