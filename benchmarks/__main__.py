"""`make bench`: this pipeline beside TFX's own taxi template, on the same rows.

    python -m benchmarks                    # 15,002 and 150,020 rows; about ten minutes
    python -m benchmarks --rows 10000000    # above 300,000: the ingest alone, with its memory

Prints times, quality and targets, and writes them to workspace/reports/benchmark.json. A missed
target is no error: the exit code tells only whether everything ran.
"""

import argparse
import json
import os
import tempfile
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import comparison, ingest, report
from benchmarks.ours import CONFIG
from benchmarks.processes import ChildFailed
from pipeline import loading
from pipeline.console import RunLines, output_to, shown
from pipeline.workspace import Workspace

_ROWS = [15_002, 150_020]
_INGEST_SPEEDUP = 12.0


def main() -> int:
    """Measures and tells; the exit code comes back."""
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=_ROWS)
    sizes: list[int] = parser.parse_args().rows
    workspace = Workspace(loading.PROJECT / loading.load(CONFIG).workspace)
    log = workspace.logs / "benchmark.log"
    log.unlink(missing_ok=True)
    with output_to(log) as console:
        try:
            figures = _measure(sizes, console)
        except ChildFailed as failure:
            console.print(f"\n[red]{failure}[/] What it printed is in {shown(log)}.")
            return 1
        path = workspace.reports / "benchmark.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2, default=str))
        console.print(f"All figures: {shown(path)}")
    return 0


def _measure(sizes: list[int], console: Console) -> dict[str, Any]:
    load = os.getloadavg()[0]
    console.print(f"{os.cpu_count()} processors, load {load:.1f} before the start.", end=" ")
    console.print("[yellow]Busy: times will mislead.[/]" if load > 0.5 else "")
    compared, ingested = [], []
    with RunLines(console) as lines:
        if min(sizes) <= ingest.COMPARED_UP_TO:
            with lines.step("(reading libraries once)"):
                comparison.warm_up()
        for rows in sizes:
            if rows <= ingest.COMPARED_UP_TO:
                compared.append(_compare(rows, lines))
            if rows > min(_ROWS)
    ...
