"""`python -m pipeline.kubeflow.step.smoke [COMPONENT ...]`: can each step be imported here?

Part of the image's build. Some of the steps' packages swallow an ImportError and fail later, with a
name that is missing, so what is missing is asked for here.
"""

import json
import subprocess
import sys
from typing import Any

_PROBE = """
import json, sys
from pipeline.kubeflow.step import execution
execution.prepare(json.loads(sys.argv[1]))
from ml_metadata import metadata_store
import pipeline.kubeflow.retraining
import pipeline.kubeflow.submit.client
import pipeline.kubeflow.train_job.execution
import pipeline.kubeflow.train_job.worker
import tensorflow_model_analysis
tensorflow_model_analysis.default_eval_shared_model
"""


def main(only: list[str]) -> int:
    """Imports each step's executor in a process of its own; the exit code comes back.

    Args:
      only: the components to import, such as Trainer; all if there are none.
    """
    steps = _steps()
    components = sorted({step["component"] for step in steps})
    if unknown := [name for name in only if name not in components]:
        print(f"No step is {', '.join(unknown)}: {', '.join(components)}.", file=sys.stderr)
        return 2
    failed = []
    for step in steps:
        if only and step["component"] not in only:
            continue
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, json.dumps(step)],
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"{step['component']:<18} {'failed' if done.returncode else 'imports'}", flush=True)
        if done.returncode:
            failed.append(step["component"])
            print(done.stderr, file=sys.stderr)
    return 1 if failed else 0


def _steps() -> list[dict[str, Any]]:
    from pipeline import loading, parts
    from pipeline.kubeflow import compiling

    target = compiling.load_target("kubeflow")
    packages = [compiling.training(loading.load("automated"), target)]
    if "components.continued_evaluation" in parts.present():
        packages.append(compiling.continued_evaluation("automated", [], target, "kubeflow"))
    return [
        json.loads(executor["container"]["args"][1])
        for package in packages
        for executor in package.spec["deploymentSpec"]["executors"].values()
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
