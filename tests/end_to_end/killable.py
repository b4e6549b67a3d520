"""A Trainer's execution in a process of its own, to be killed: train, export, record.

`python -m tests.end_to_end.killable SPEC.json` does what the Trainer's `run_fn` does, on artifacts
of an earlier run. Beside the model it leaves hashes of the whole state that training ended with,
which goes with the checkpoints otherwise.
"""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from components.trainer import run
from components.trainer.core.job import Job, Trained, train
from tests.components.trainer import small_training


def main(spec: dict[str, Any]) -> None:
    """Trains and exports."""
    out = Path(spec["out"])

    def train_and_note(job: Job) -> Trained:
        print("training", flush=True)
        done = train(job, hand_over=True)
        _, arrays = small_training.last_checkpoint(done.store)
        groups = {name: [a.tobytes() for a in group] for name, group in arrays.items()}
        state = {n: hashlib.sha256(b"".join(arrays)).hexdigest() for n, arrays in groups.items()}
        (out / "state.json").write_text(json.dumps(state))
        return done

    run.train_and_export(SimpleNamespace(**spec["fn_args"]), train_and_note)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
