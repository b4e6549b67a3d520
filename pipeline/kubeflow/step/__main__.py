"""`python -m pipeline.kubeflow.step`: one TFX executor, as KFP's launcher calls it.

The last line of the log is the reason when a step fails: the API gives none.
"""

import argparse
import gc
import json
import logging
import os
import sys
import traceback
from pathlib import Path


def main(argv: list[str]) -> int:
    """Runs a step; the exit code comes back."""
    flags = argparse.ArgumentParser(prog="python -m pipeline.kubeflow.step")
    flags.add_argument("--step", required=True, help="what to run, as the compiler wrote it")
    flags.add_argument("--input", required=True, help="KFP's executor input, or @ and its file")
    given = flags.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("progress").setLevel(logging.INFO)
    logging.getLogger("apache_beam.typehints").setLevel(logging.WARNING)  # a line for each type
    text = Path(given.input[1:]).read_text() if given.input.startswith("@") else given.input
    step, executor_input = json.loads(given.step), json.loads(text)
    try:
        _run(step, executor_input)
    except BaseException as error:  # what ends the process must be named in its last line
        return _tell(step["component"], error)
    print(f"{step['component']} is done.", flush=True)
    return 0


def _run(step: dict[str, object], executor_input: dict[str, object]) -> None:
    gc.disable()  # half a million objects of the imports stay; to look through them takes seconds
    from pipeline.kubeflow.step import execution

    executor = execution.prepare(step)
    gc.freeze()
    gc.enable()
    execution.execute(executor, step, executor_input)


def _tell(component: str, error: BaseException) -> int:
    from components.errors import PipelineStop
    from components.trainer.core.interruption import START_AGAIN

    if not isinstance(error, PipelineStop):
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    reason = " ".join(_reason(error).split())
    print(f"{component} failed: {reason}", file=sys.stderr, flush=True)
    return START_AGAIN if isinstance(error, KeyboardInterrupt) else 1


def _reason(error: BaseException) -> str:
    from pipeline.reasons import reason

    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted; a checkpoint is kept, the next attempt goes on"
    return reason(error)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of Beam and TensorFlow have nothing more to say
