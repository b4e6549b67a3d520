"""The programs that tests start: `python -m tests.components.multi_worker.processes JOB`.

Each is one machine's part of a training: it trains the job as the chief, or joins it, and prints
what became of it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[3]


def start(job: Any, **environment: str) -> "subprocess.Popen[str]":
    """Starts one."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.components.multi_worker.processes", json.dumps(vars(job))],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes that a process has started."""
    try:
        return [
            child
            for child in psutil.Process(pid).children()
            if "components.trainer.core.worker" in child.cmdline()
        ]
    except psutil.NoSuchProcess:
        return []


def main() -> int:
    from components.multi_worker import member
    from components.multi_worker.run import train_group
    from components.trainer.core.interruption import START_AGAIN, Interrupted
    from components.trainer.core.job import Job

    job = Job(**json.loads(sys.argv[1]))

    def train() -> int:
        try:
            done = train_group(job)
        except Interrupted as error:
            print(error, flush=True)
            return START_AGAIN
        print(f"trained {done.progress['position']['step']} steps", flush=True)
        return 0

    return member.take_part(job.checkpoints, train, lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
