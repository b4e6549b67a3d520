"""`make bench-kubeflow`: how long a step of the Kubeflow package takes to start.

    python -m benchmarks.step_start             # about five minutes
    python -m benchmarks.step_start --rounds 9  # steadier on a busy machine

For each step, from a fresh process to the call of its executor; beside it, `import tfx.v1`, which
TFX's own entrypoint and every pipeline file begin with. Prints a table, and writes it to
workspace/reports/benchmark-kubeflow.json.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks import processes, report
from pipeline import loading
from pipeline.telling import RunLines, output_to, shown, table
from pipeline.workspace import Workspace

LIMIT = 1.0
"""Of the time that `import tfx.v1` takes."""
NOTES = """\
Medians; each round starts every program once, so what else the machine does meets them all.
A step: its imports, reading what KFP hands over, the call of its executor, which ends it here."""
_READY = "ready"
_IMPORT = f"import os, tfx.v1; print('{_READY}', flush=True); os._exit(0)"
_STEP = f"""
import gc, json, os, sys
gc.disable()
from pipeline.kubeflow import step
told, executor_input = map(json.loads, sys.argv[1:])
component = step.make_component(told, {{}})
gc.freeze()
gc.enable()
def ready(*_):
    print('{_READY}', flush=True)
    os._exit(0)
component.executor_spec.executor_class.Do = ready
step.execute(component, executor_input, step.Stores())
"""
"""As `pipeline.kubeflow.step` does it, with an executor that does nothing."""

Programs = dict[str, list[str]]


def main() -> int:
    """Measures and tells; the exit code comes back."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.step_start",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    workspace = Workspace(loading.PROJECT / loading.load("automated").workspace)
    workspace.make()
    log = workspace.logs / "benchmark-kubeflow.log"
    log.unlink(missing_ok=True)
    with output_to(log) as console, tempfile.TemporaryDirectory() as folder:
        processors, load = os.cpu_count(), os.getloadavg()[0]
        console.print(f"{processors} processors, load {load:.1f}")
        if load > report.BUSY:
            console.print("[yellow]The machine is busy with something else: look at ratios.[/]")
        try:
            seconds = _measure(_programs(Path(folder)), rounds, console)
        except processes.ChildFailed:
            console.print(f"[red]A step did not start.[/] What it printed is in {shown(log)}.")
            return 1
        ratios = _tell(seconds, console)
        found = {"processors": processors, "load": load, "seconds": seconds, "ratios": ratios}
        path = workspace.reports / "benchmark-kubeflow.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2))
        console.print(f"\nAll figures: {shown(path)}")
    return 0


def _programs(folder: Path) -> Programs:
    """What follows `python`, by step."""
    from pipeline.kubeflow import compiling

    package = compiling.training(loading.load("automated"), compiling.load_target("kubeflow"))
    given = {
        "inputs": {},
        "outputs": {"artifacts": {}, "outputFile": str(folder / "output.json")},
    }
    return {
        name: ["-c", _STEP, json.dumps(told), json.dumps(given)]
        for name, told in compiling.steps_of(package.content).items()
    }


def _measure(steps: Programs, rounds: int, console: Console) -> dict[str, list[float]]:
    """Seconds by program and round; the programs take turns."""
    programs = {"import tfx.v1": ["-c", _IMPORT], **steps}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    with RunLines(console) as lines:
        with lines.step("reading all libraries once, untimed"):
            processes.run(["-c", _IMPORT], loading.PROJECT)
        for number in range(1, rounds + 1):
            with lines.step(f"round {number} of {rounds}"):
                for name, program in programs.items():
                    timed = processes.run(program, loading.PROJECT, _READY)
                    seconds[name].append(timed.until_marker)
    return seconds


def _tell(seconds: dict[str, list[float]], console: Console) -> dict[str, float]:
    """Prints the table and the target; the ratios come back."""
    lines = table("\nfrom a fresh process", "median s", "least", "most", "ratio")
    whole = median(seconds["import tfx.v1"])
    ratios = {name: median(spent) / whole for name, spent in seconds.items()}
    for name, spent in seconds.items():
        values = (median(spent), min(spent), max(spent), ratios[name])
        lines.add_row(name, *(f"{value:.2f}" for value in values))
    console.print(lines)
    slowest = max((name for name in ratios if name != "import tfx.v1"), key=ratios.__getitem__)
    what = f"the slowest step, {slowest}, / import tfx.v1"
    report.tell_targets([report.Target(what, ratios[slowest], LIMIT)], console, NOTES)
    return ratios


if __name__ == "__main__":
    raise SystemExit(main())
