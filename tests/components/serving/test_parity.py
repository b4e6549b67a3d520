"""The server and batch prediction answer alike."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
from typer.testing import CliRunner

from pipeline.cli import app
from tests.components.serving.servers import MODEL, Server, expected


def test_bulk_and_online_predictions_are_the_same(
    server: Server, registry: Path, tmp_path: Path
) -> None:
    rows = [{"amount": n / 4, "hour": n % 24, "shop": "x" * (n % 5), "key": n} for n in range(40)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    command = ["batch-predict", "--config", "taxi", "--key", "key"]
    command += ["--input", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out")]
    command += [f"--set=workspace={registry.parents[1]}", f"--set=registry.model={MODEL}"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    files = (tmp_path / "out" / "predictions").rglob("*.parquet")
    found = [row for path in files for row in pq.read_table(path).to_pylist()]
    bulk = {row["key"]: row["prediction"] for row in found}
    online = server.predict(rows).json()["predictions"]
    assert bulk == {str(row["key"]): row["predictions"][0] for row in online}
    assert bulk == {str(row["key"]): expected(3, row) for row in rows}
