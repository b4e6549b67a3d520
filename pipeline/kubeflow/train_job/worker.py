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
from collections.abc import Callable
from pathlib import Path

from components.errors import PipelineStop
from components.trainer.core.interruption import START_AGAIN
from pipeline.kubeflow.train_job import execution, job

_FINAL = 1
"""Exit code that does not start the group again."""


class Watch:
    """Watches for changes of the file that the step writes while it lives."""

    def __init__(self, file: Path, silence: float, on_silence: Callable[[], None] | None = None):
        """Starts.

        Args:
          file: the step's.
          silence: seconds without a change that are taken for the step's death.
          on_silence: called once, from another thread, after them.
        """
        self._file, self._seconds, self._on_silence = file, silence, on_silence
        self._changed = time.monotonic()
        threading.Thread(target=self._look, daemon=True).start()

    def is_quiet(self) -> bool:
        """Whether several beats were missed: with other evidence, as good as silence."""
        return time.monotonic() - self._changed > self._seconds / 2

    def _look(self) -> None:
        last = ""
        while time.monotonic() - self._changed < self._seconds:
            try:
                content = self._file.read_text()
            except OSError:
                content = last
            if content != last:
                last, self._changed = content, time.monotonic()
            time.sleep(self._seconds / 10)
        if self._on_silence:
            self._on_silence()


def main(folder: Path) -> int:
    """Takes part in the training; the exit code comes back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    index = int(os.environ["JOB_COMPLETION_INDEX"])
    cluster = {"worker": os.environ[job.ADDRESSES].split(",")}
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    # The chief is told, and takes the others with it once a checkpoint is written.
    end = _end if index == 0 else None
    watch = Watch(folder / execution.HEARTBEAT, float(os.environ[job.SILENCE]), end)
    try:
        if not folder.is_dir():
            raise PipelineStop(
                f"{folder} is not there: this pod does not see the workspace that the step writes. "
                "workspace.claim has to be a volume that several pods mount (ReadWriteMany)."
            )
        code = _take_part(folder)
    except PipelineStop as error:
        print(f"Trainer failed: {error}", file=sys.stderr)
        return _FINAL
    except KeyboardInterrupt:
        code = START_AGAIN
    return _FINAL if code == START_AGAIN and watch.is_quiet() else code


def _end() -> None:
    print("The step that made this TrainJob is gone.", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _take_part(folder: Path) -> int:
    member = importlib.import_module("components.multi_worker.member")  # an optional part

    def run() -> int:
        from pipeline.kubeflow import step

        if (folder / execution.OUTPUT).exists():
            return 0  # a pod was lost after the chief had finished
        told = json.loads((folder / execution.STEP).read_text())
        return step.main([told["component"], f"@{folder / execution.INPUT}"], told)

    return int(member.take_part(str(folder), run, lambda line: print(line, flush=True)))


if __name__ == "__main__":
    ended = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # threads of TensorFlow have nothing more to say
