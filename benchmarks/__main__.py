"""`make bench`: this pipeline beside TFX's own taxi template, on the same rows.

    python -m benchmarks                    # 15,002 and 150,020 rows; about eight minutes
    python -m benchmarks --rows 10000000    # above 300,000: the ingest alone, and its memory

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
from pipeline.telling import RunLines, output_to, shown
from pipeline.workspace import Workspace

_ROWS = [15_002, 150_020]


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
    with output_to(log) as console, tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        os.environ["TMPDIR"] = scratch  # Beam and TensorFlow leave files behind.
        try:
            figures = _measure(sizes, Path(scratch), console)
        except ChildFailed as failure:
            console.print(f"\n[red]{failure}[/] What it printed is in {shown(log)}.")
            return 1
        path = workspace.reports / "benchmark.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2, default=str))
        console.print(f"\nAll figures: {shown(path)}")
    return 0


def _measure(sizes: list[int], scratch: Path, console: Console) -> dict[str, Any]:
    processors, load = os.cpu_count(), os.getloadavg()[0]
    console.print(f"{processors} processors, load {load:.1f}")
    if load > report.BUSY:
        console.print("[yellow]The machine is busy with something else: times will mislead.[/]")
    figures: dict[str, Any] = {"processors": processors, "load_before": load}
    wanted: list[report.Target] = []
    with RunLines(console) as lines:
        if min(sizes) <= ingest.COMPARED_UP_TO:
            with lines.step("reading all libraries once, untimed"):
                comparison.warm_up()
        for rows in sizes:
            found, targets = _measure_rows(rows, scratch / str(rows), lines, console)
            figures[f"{rows} rows"] = found
            wanted += targets
    report.tell_targets(wanted, console)
    return figures | {"targets": [target._asdict() | {"met": target.met} for target in wanted]}


def _measure_rows(
    rows: int, folder: Path, lines: RunLines, console: Console
) -> tuple[dict[str, Any], list[report.Target]]:
    def step(what: str) -> AbstractContextManager[None]:
        return lines.step(f"{rows:>10,} rows: {what:<46}")

    figures: dict[str, Any] = {}
    wanted: list[report.Target] = []
    comparison.write_rows(rows, folder)
    if rows <= ingest.COMPARED_UP_TO:
        compared = comparison.compare(rows, folder, step)
        report.tell(compared, console)
        wanted += report.targets(compared)
        figures |= asdict(compared)
    if rows >= max(_ROWS):
        ingested = comparison.measure_ingest(rows, folder, step)
        report.tell_ingest(rows, ingested, console)
        wanted += report.ingest_targets(rows, ingested)
        figures["ingest"] = [run._asdict() for run in ingested]
    return figures, wanted


if __name__ == "__main__":
    raise SystemExit(main())
