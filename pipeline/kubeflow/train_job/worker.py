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
import threading
import time
from pathlib import Path

from components.errors import PipelineStop
from components.trainer.core.interruption import START_AGAIN
from pipeline.kubeflow.train_job import execution, job

_FINAL = 1
"""Exit code that does not start the group again."""


class Watch(threading.Thread):
    """Watches for changes of the file that the step writes while it lives.

    After `silence` seconds without one a chief is told to end, and takes the others with it once a
    checkpoint is written. Clocks of machines differ, so only changes count.
    """

    def __init__(self, file: Path, silence: float, is_chief: bool):
        super().__init__(daemon=True)
        self._file, self._silence, self._is_chief = file, silence, is_chief
        self._changed = time.monotonic()
        self.start()

    def is_quiet(self) -> bool:
        """Whether several beats were missed: with other evidence, as good as silence."""
        return time.monotonic() - self._changed > self._silence / 2

    def run(self) -> None:
        """Looks until there is silence."""
        last = ""
        while time.monotonic() - self._changed < self._silence:
            try:
                content = self._file.read_text()
            except OSError:
                content = last
            if content != last:
                last, self._changed = content, time.monotonic()
            time.sleep(self._silence / 10)
        if self._is_chief:
            print("The step that made this TrainJob is gone.", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path) -> int:
    """Takes part in the training; the exit code comes back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    index = int(os.environ["JOB_COMPLETION_INDEX"])
    cluster = {"worker": os.environ[job.ADDRESSES].split(",")}
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    watch = Watch(folder / execution.HEARTBEAT, float(os.environ[job.SILENCE]), index == 0)
    try:
        if not folder.is_dir():
            raise PipelineStop(
                f"{folder} is not there: this pod does not see the workspace that the step writes. "
                "workspace.claim has to be a volume that several pods mount (ReadWriteMany)."
            )
        member = importlib.import_module("components.multi_worker.member")  # an optional part
        code = int(member.take_part(str(folder), lambda: _train(folder), _show))
    except PipelineStop as error:
        print(f"Trainer failed: {error}", file=sys.stderr)
        return _FINAL
    except KeyboardInterrupt:
        code = START_AGAIN
    return _FINAL if code == START_AGAIN and watch.is_quiet() else code


def _train(folder: Path) -> int:
    """The chief's: the Trainer's step, unless a pod was lost after it had finished."""
    from pipeline.kubeflow import step

    if (folder / execution.OUTPUT).exists():
        return 0
    told = json.loads((folder / execution.STEP).read_text())
    return step.main([told["component"], f"@{folder / execution.INPUT}"], told)


def _show(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    ended = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # threads of TensorFlow have nothing more to say
