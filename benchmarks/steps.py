"""`make bench-kubeflow`: how long a step of the Kubeflow package takes to start.

For each step, from a fresh process to the call of its executor; beside it, `import tfx.v1`, which
TFX's own entrypoint and every pipeline file begin with. Medians of five rounds; each round starts
every program once, so what else the machine does meets them all. About five minutes.
"""

import json
from statistics import median

from benchmarks.measuring import CONFIG, bench, run

_IMPORT = "import os, tfx.v1; print('ready', flush=True); os._exit(0)"
_STEP = """
import gc, json, os, sys
gc.disable()
from pipeline.kubeflow import step
told, executor_input = map(json.loads, sys.argv[1:])
component = step.make_component(told, {})
gc.freeze()
gc.enable()
def ready(*_):
    print('ready', flush=True)
    os._exit(0)
component.executor_spec.executor_class.Do = ready
step.execute(component, executor_input, step.Stores())
"""
"""As `pipeline.kubeflow.step` does it, with an executor that does nothing."""


def main() -> None:
    """Measures and tells."""
    from pipeline.kubeflow import compiling, parameters

    with bench("kubeflow") as made:
        package = compiling.training(parameters.load(CONFIG), compiling.load_target("kubeflow"))
        output = str(made.scratch / "output.json")
        given = json.dumps({"inputs": {}, "outputs": {"artifacts": {}, "outputFile": output}})
        programs = {"import tfx.v1": ["-c", _IMPORT]}
        for name, told in package.steps.items():
            programs[name] = ["-c", _STEP, json.dumps(told), given]
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for number in range(6):
            with made.step(f"round {number} of 5" if number else "reading all libraries once"):
                for name, program in programs.items():
                    seconds[name].append(run(program, marker="ready").until_marker)
        middle = {name: median(spent[1:]) for name, spent in seconds.items()}
        whole = middle["import tfx.v1"]
        lines = [[n, value, value / whole] for n, value in middle.items()]
        made.tell("\nfrom a fresh process", "s", "of import tfx.v1", rows=lines)
        slowest = max(value for name, value in middle.items() if name != "import tfx.v1")
        made.target("the slowest step, of import tfx.v1", slowest / whole, 1.0)
        made.figures["seconds"] = seconds


if __name__ == "__main__":
    main()
