"""`python -m pipeline.kubeflow.train_job.worker FOLDER`: what each pod of a TrainJob runs.

It makes TF_CONFIG from its completion index and the addresses of all workers. The chief runs the
Trainer's step as it would run alone, with the staged inputs and outputs; the others wait for it
and train with it.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from components.errors import PipelineStop
from components.trainer.core.interruption import START_AGAIN
from pipeline.kubeflow.train_job import heartbeat, names, staging

_FINAL = 1
"""Exit code that does not start the group again."""


def main(folder: Path) -> int:
    """Takes part in the training; the exit code comes back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["TF_CONFIG"] = tf_config(os.environ)
    is_chief = os.environ["JOB_COMPLETION_INDEX"] == "0"
    silence = float(os.environ[names.SILENCE])
    # The chief is told, and takes the others with it once a checkpoint is written.
    watch = heartbeat.Watch(folder / staging.HEARTBEAT, silence, _end if is_chief else None)
    try:
        _check(folder)
        code = _take_part(folder)
    except PipelineStop as error:
        print(f"Trainer failed: {error}", file=sys.stderr)
        return _FINAL
    except KeyboardInterrupt:
        code = START_AGAIN
    return _FINAL if code == START_AGAIN and watch.is_quiet() else code


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise PipelineStop(
            f"{folder} is not there: this pod does not see the workspace that the step writes. "
            "workspace.claim has to be a volume that several pods mount (ReadWriteMany)."
        )


def _end() -> None:
    print("The step that made this TrainJob is gone.", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def tf_config(environment: Mapping[str, str]) -> str:
    """TF_CONFIG as JSON, from the addresses and the index that Kubernetes gives to each pod."""
    cluster = {"worker": environment[names.ADDRESSES].split(",")}
    task = {"type": "worker", "index": int(environment["JOB_COMPLETION_INDEX"])}
    return json.dumps({"cluster": cluster, "task": task})


def _take_part(folder: Path) -> int:
    member = importlib.import_module("components.multi_worker.member")  # an optional part

    def run() -> int:
        from pipeline.kubeflow.step import __main__ as step

        if (folder / staging.OUTPUT).exists():
            return 0  # a pod was lost after the chief had finished
        described = (folder / staging.STEP).read_text()
        return step.main(["--step", described, "--input", f"@{folder / staging.INPUT}"])

    return int(member.take_part(str(folder), run, lambda line: print(line, flush=True)))


if __name__ == "__main__":
    ended = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # threads of TensorFlow have nothing more to say
