"""`python -m pipeline.kubeflow.smoke [COMPONENT ...]`: can each step's component be made here?

Part of the image's build. Some of the steps' packages swallow an ImportError and fail later, with a
name that is missing, so what is missing is asked for here.
"""

import json
import subprocess
import sys
from typing import Any

from pipeline import loading, parts

_PROBE = """
import json, sys
from pipeline.kubeflow import step
step.make_component(json.loads(sys.argv[1]), {})
import pipeline.kubeflow.retraining
import pipeline.kubeflow.train_job.worker
import kfp
import tensorflow_model_analysis
tensorflow_model_analysis.default_eval_shared_model
"""


def main(only: list[str]) -> int:
    """Makes the component of each step, or of these alone, in a process of its own."""
    told, code = steps(), 0
    for name in only or sorted(told):
        command = [sys.executable, "-c", _PROBE, json.dumps(told[name])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{name:<18} {'failed' if done.returncode else 'imports'}", flush=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            code = 1
    return code


def steps() -> dict[str, Any]:
    """What each step of the packages is told, by component."""
    from pipeline.kubeflow import compiling

    target = compiling.load_target("kubeflow")
    trained = compiling.training(loading.load("automated"), target)
    if "components.continued_evaluation" not in parts.present():
        return trained.steps()
    evaluated = compiling.continued_evaluation("automated", [], target, trained)
    return trained.steps() | evaluated.steps()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
