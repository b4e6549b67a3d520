"""A training job that notes its times: `python -m benchmarks.timed_job JOB EVENTS [DEVICES]`.

JOB is a file with a `Job` as JSON; EVENTS is written, a line of JSON each. DEVICES makes so many
logical devices of the processor.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from components.trainer.core.job import Job, train
from components.trainer.core.loop import Progress, Training


class Events:
    """Lines of JSON, each written at once, so that they outlive a kill."""

    def __init__(self, path: Path):
        """Appends to the file."""
        self._file = path.open("a", buffering=1)

    def note(self, what: str, **values: Any) -> None:
        """Writes what happened, the times, and the memory now and at its highest so far."""
        times = {"time": time.time(), "processor": time.process_time()}
        self._file.write(json.dumps({"what": what, **times, **_memory(), **values}) + "\n")


def _memory() -> dict[str, int]:
    """Bytes. The highest is this program's own: `ru_maxrss` would begin with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    resident, highest = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return {"resident": resident, "highest": highest}


def watch(events: Events) -> None:
    """Has every training note its start, its evaluations, and each stretch of steps."""
    run, evaluate = Training.run, Training.evaluate

    def timed_evaluate(self: Training) -> dict[str, float]:
        started = time.time()
        metrics = evaluate(self)
        seconds = time.time() - started
        events.note("evaluated", step=self.position.step, seconds=seconds, metrics=metrics)
        return metrics

    def timed(
        self: Training,
        report: Callable[[Progress], None],
        pause: Callable[[Training], None] = lambda _: None,
    ) -> None:
        def paused(training: Training) -> None:
            events.note("steps", step=training.position.step)
            pause(training)
            events.note("pause over", step=training.position.step)

        source = self.feed.source
        events.note(
            "run",
            step=self.position.step,
            rows=self.feed.rows,
            windows=len(source.counts) // source.window,
        )
        run(self, report, paused)
        events.note("finished", step=self.position.step)

    Training.run = timed  # type: ignore[method-assign]
    Training.evaluate = timed_evaluate  # type: ignore[method-assign]


def main(job_file: str, events_file: str, devices: str = "1") -> int:
    """Trains; the exit code of the job comes back."""
    events = Events(Path(events_file))
    if devices != "1":
        (processor,) = tf.config.list_physical_devices("CPU")
        each = [tf.config.LogicalDeviceConfiguration() for _ in range(int(devices))]
        tf.config.set_logical_device_configuration(processor, each)
    events.note("imported")
    watch(events)
    train(Job(**json.loads(Path(job_file).read_text())))
    events.note("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
