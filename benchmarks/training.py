"""`make bench-training`: the training loop beside the template's, its checkpoints and its memory.

    python -m benchmarks.training                    # about five minutes
    python -m benchmarks.training --rows 10000000    # that many rows from disk; about four minutes

Prints figures and targets, and writes them to workspace/reports/benchmark-training.json. A missed
target is no error: the exit code tells only whether everything ran.
"""

import argparse
import json
import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.processes import ChildFailed
from pipeline import loading
from pipeline.telling import RunLines, output_to, shown
from pipeline.workspace import Workspace


def main() -> int:
    """Measures and tells; the exit code comes back."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rows", type=int, help="train from disk on that many, and nothing else")
    rows: int | None = parser.parse_args().rows
    workspace = Workspace(loading.PROJECT / loading.load("automated").workspace)
    log = workspace.logs / "benchmark-training.log"
    log.unlink(missing_ok=True)
    with output_to(log) as console, tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        os.environ["TMPDIR"] = scratch  # Beam and TensorFlow leave files behind.
        try:
            figures = _measure(rows, Path(scratch), console)
        except ChildFailed as failure:
            console.print(f"\n[red]{failure}[/] What it printed is in {shown(log)}.", markup=True)
            return 1
        path = workspace.reports / "benchmark-training.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2, default=str))
        console.print(f"\nAll figures: {shown(path)}")
    return 0


def _measure(rows: int | None, scratch: Path, console: Console) -> dict[str, Any]:
    from benchmarks import training_report  # now that TensorFlow's messages go to the log

    processors, load = os.cpu_count(), os.getloadavg()[0]
    console.print(f"{processors} processors, load {load:.1f}")
    if load > report.BUSY:
        console.print("[yellow]The machine is busy with something else: times will mislead.[/]")
    figures: dict[str, Any] = {"processors": processors, "load_before": load}
    with RunLines(console) as lines:

        def step(what: str) -> AbstractContextManager[None]:
            return lines.step(f"{what:<46}")

        if rows:
            found, wanted = training_report.measure_rows(rows, scratch, step, console)
        else:
            found, wanted = training_report.measure_all(scratch, step, console)
    report.tell_targets(wanted, console, training_report.NOTES)
    return figures | found | {"targets": [t._asdict() | {"met": t.met} for t in wanted]}


if __name__ == "__main__":
    raise SystemExit(main())
