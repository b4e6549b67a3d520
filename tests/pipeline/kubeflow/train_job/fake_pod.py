"""A pod of the stand-in cluster: a real process, and its log as kubelet tells it."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_GRACE = 30.0


class FakePod:
    """One container. Without a command it is never scheduled."""

    def __init__(self, name: str, index: int, labels: dict[str, str], trouble: str = ""):
        self.name, self.index, self.labels, self._trouble = name, index, labels, trouble
        self.process: subprocess.Popen[bytes] | None = None
        self._created = datetime.now(UTC)
        self._news = threading.Condition()
        self._lines: list[tuple[datetime, str]] = []
        self._has_log_ended = False

    def start(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        """Starts the container's process."""
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process and self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self._lines.append((datetime.now(UTC), line.decode().rstrip("\n")))
                self._news.notify_all()
        with self._news:
            self._has_log_ended = True
            self._news.notify_all()

    @property
    def code(self) -> int | None:
        """The exit code as a container has it: 137 for SIGKILL."""
        code = self.process.poll() if self.process else None
        return 128 - code if code is not None and code < 0 else code

    def end(self) -> None:
        """SIGTERM, and SIGKILL to all that is left, as kubelet does."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the container's processes."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def text(self) -> str:
        """The log so far."""
        return "\n".join(line for _, line in self._lines)

    def log(self, follow: bool, since_seconds: int | None, tail: int | None) -> Any:
        """Yields lines with their times, as the API does."""
        after = time.time() - since_seconds if since_seconds is not None else 0.0
        at = max(0, len(self._lines) - tail) if tail is not None else 0
        while True:
            with self._news:
                while follow and at >= len(self._lines) and not self._has_log_ended:
                    self._news.wait()
                if at >= len(self._lines):
                    return
                stamp, line = self._lines[at]
            at += 1
            if stamp.timestamp() >= after:
                yield f"{stamp:%Y-%m-%dT%H:%M:%S.%f}000Z {line}\n"

    def described(self) -> dict[str, Any]:
        """The Pod as the API shows it."""
        created = f"{self._created:%Y-%m-%dT%H:%M:%S}Z"
        state: dict[str, Any] = {"running": {"startedAt": created}}
        if self.code is not None:
            state = {"terminated": {"exitCode": self.code, "reason": "Error"}}
        status = {"name": "node", "ready": True, "restartCount": 0, "image": "", "imageID": ""}
        conditions = [
            {
                "type": "PodScheduled",
                "status": "False" if self._trouble else "True",
                "reason": "Unschedulable" if self._trouble else None,
                "message": self._trouble or None,
            }
        ]
        statuses = [status | {"state": state}] if self.process else []
        return {
            "metadata": {
                "name": self.name,
                "labels": self.labels,
                "annotations": {"batch.kubernetes.io/job-completion-index": str(self.index)},
                "creationTimestamp": created,
            },
            "spec": {"containers": [{"name": "node"}]},
            "status": {"conditions": conditions, "containerStatuses": statuses},
        }
