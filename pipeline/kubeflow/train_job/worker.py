"""`python -m pipeline.kubeflow.train_job.worker FOLDER`: what each pod of a TrainJob runs.

It makes TF_CONFIG from its completion index and the addresses of all workers. The chief runs the
Trainer's step as it would run alone, with FOLDER's stores; the others wait for it and train with
it. What they print is also written to the folder, where the step reads it.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from components.errors import PipelineStop
from components.trainer.core.interruption import START_AGAIN
from pipeline.kubeflow.train_job import execution, job

_FINAL = 1
"""Exit code that does not start the group again."""


def main(folder: Path) -> int:
    """Takes part in the training; the exit code comes back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    index = int(os.environ["JOB_COMPLETION_INDEX"])
    cluster = {"worker": os.environ[job.ADDRESSES].split(",")}
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    if not folder.is_dir():
        _show(
            f"{folder} is not there: this pod does not see the workspace that the step writes. "
            "workspace.claim has to be a volume that several pods mount (ReadWriteMany)."
        )
        return _FINAL
    command = ["tee", "-a", str(folder / f"{execution.LOG}.{index}")]
    log = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert log.stdin
    for descriptor in (1, 2):
        os.dup2(log.stdin.fileno(), descriptor)
    threading.Thread(target=_watch, args=[folder], daemon=True).start()
    code = _take_part(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2, log.stdin.fileno()):
        os.close(descriptor)
    log.wait()  # until the last line is written
    return code


def _take_part(folder: Path) -> int:
    member = importlib.import_module("components.multi_worker.member")  # an optional part
    try:
        return int(member.take_part(str(folder), lambda: _train(folder), _show))
    except PipelineStop as error:
        _show(f"Trainer failed: {error}")
        return _FINAL
    except KeyboardInterrupt:
        return START_AGAIN


def _train(folder: Path) -> int:
    """The chief's: the Trainer's step, unless a pod was lost after it had finished."""
    from pipeline.kubeflow import step

    if (folder / execution.OUTPUT).exists():
        return 0
    os.environ["PIPELINE_STEP"] = (folder / execution.STEP).read_text()
    return step.main(["Trainer", f"@{folder / execution.INPUT}", "--stores", f"{folder}/"])


def _watch(folder: Path) -> None:
    """Ends this process, and its training with it, when the step that made the TrainJob is gone.

    It is if the file that it writes while it lives has not changed for long. Clocks of machines
    differ, so only changes count.
    """
    silence, last, changed = float(os.environ[job.SILENCE]), "", time.monotonic()
    while time.monotonic() - changed < silence:
        file = folder / execution.HEARTBEAT
        content = file.read_text() if file.exists() else last
        if content != last:
            last, changed = content, time.monotonic()
        time.sleep(silence / 10)
    _show("Trainer failed: The step that made this TrainJob is gone.")
    time.sleep(1.0)  # the log is written
    os._exit(_FINAL)


def _show(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1])))  # threads of TensorFlow have nothing more to say
