"""`python -m pipeline.kubeflow.smoke`: can the component of each step be made here?

Part of the image's build. Some packages swallow an ImportError and fail later, with a name that is
missing, so what is missing is asked for here.
"""

import kfp.client  # noqa: F401
import tensorflow_model_analysis

import pipeline.kubeflow.train_job.worker  # noqa: F401
from pipeline.kubeflow import compiling, step


def main() -> None:
    """Compiles all packages, and makes the components again as their steps do."""
    assert tensorflow_model_analysis.default_eval_shared_model
    for package in compiling.packages("automated", [], compiling.load_target("kubeflow")):
        for name, told in package.steps.items():
            step.make_component(told, {})
            print(f"{name:<18} can be made", flush=True)


if __name__ == "__main__":
    main()
