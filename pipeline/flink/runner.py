"""Beam's runner for Flink, with what a person at the command line needs.

A cluster that is not there is told within seconds. A PipelineStop of a worker arrives whole, and
ends the job before a restart strategy repeats it. Whatever ends the wait ends the job in Flink too:
Beam's job server only forgets a job that it is to cancel. So Flink itself is asked, over REST.
"""

import contextlib
import json
import logging
import re
import time
import urllib.request
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
)
from apache_beam.runners.portability import flink_runner
from apache_beam.runners.runner import PipelineState

from components.errors import PipelineStop

PROGRESS = logging.getLogger("progress")
_ANSWER, _END = 4.0, 60.0
_DAYS = 30 * 24 * 3600
_ENDED = {"FINISHED", "FAILED", "CANCELED"}
_STOP = re.compile(r"\.PipelineStop: ((?:(?!\.PipelineStop: ).)*?) \[while running '", re.DOTALL)


class OwnOptions(PipelineOptions):
    """Options of this runner."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--jars_to_stage",
            help="Jars at the job server that each job takes to the cluster, with commas between; "
            "by default all of Beam's.",
        )


class FlinkRunner(flink_runner.FlinkRunner):
    """Runs a pipeline to its end."""

    def run_portable_pipeline(self, pipeline: Any, options: PipelineOptions) -> Any:
        """Submits and waits.

        Raises:
          PipelineStop: there is no cluster, or a worker raised one.
          RuntimeError: the job failed.
        """
        portable = options.view_as(PortableOptions)
        address = self.add_http_scheme(options.view_as(FlinkRunnerOptions).flink_master)
        _check(portable.job_endpoint, address)
        portable.job_server_timeout = _DAYS  # Beam takes it for how long a job may run, too
        jars = options.view_as(OwnOptions).jars_to_stage
        if jars:  # not before: as an option it names files of this machine
            options.view_as(SetupOptions).files_to_stage = jars.split(",")
        try:
            result = super().run_portable_pipeline(pipeline, options)
            _wait(result, FlinkJob(address, result._job_id.rpartition("_")[0]))
        except (grpc.RpcError, OSError) as error:
            why = error.code().name if isinstance(error, grpc.Call) else error
            raise PipelineStop(
                f"The job server at {portable.job_endpoint}, or Flink at {address}, answers no "
                f"more ({why}). See their logs, and in Flink whether the job still runs."
            ) from error
        return result


class FlinkJob:
    """A job as Flink itself knows it."""

    def __init__(self, address: str, name: str):
        """Takes Flink's address, and the job's unique name."""
        self._address, self._name = address, name

    def end(self) -> None:
        """Cancels it, and waits for its end; also where it is yet to appear."""
        until = time.monotonic() + _END
        known = False
        while time.monotonic() < until:
            found = self._found()
            if (found is None and known) or (found and found["state"] in _ENDED):
                return
            if found and found["state"] != "CANCELLING":
                known = True
                ask(f"{self._address}/jobs/{found['jid']}?mode=cancel", "PATCH")
            time.sleep(0.5)

    def failures(self) -> list[dict[str, Any]]:
        """What made it fail so far, the newest first; it may have been started again since."""
        found = self._found()
        if found is None:
            return []
        told = ask(f"{self._address}/jobs/{found['jid']}/exceptions")
        return list(told["exceptionHistory"]["entries"])

    def _found(self) -> Any:
        jobs = ask(f"{self._address}/jobs/overview")["jobs"]
        return next((job for job in jobs if job["name"] == self._name), None)


def ask(url: str, method: str = "GET", timeout: float = 60.0) -> Any:
    """Flink's answer; raises an OSError if there is none."""
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        return json.loads(reply.read() or "{}")


def _check(endpoint: str, address: str) -> None:
    def job_server() -> None:
        with grpc.insecure_channel(endpoint) as channel:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER)

    def flink() -> None:
        ask(f"{address}/overview", timeout=_ANSWER)

    checks: list[tuple[str, Callable[[], None]]] = [
        (f"Flink answers at {address}, as --flink_master in beam.options says", flink),
        (f"job server of Beam answers at {endpoint}, as --job_endpoint there says", job_server),
    ]
    for what, check in checks:
        try:
            check()
        except (OSError, ValueError, grpc.FutureTimeoutError):
            raise PipelineStop(
                f"No {what}. Correct it, or start a cluster on this machine: make flink-local"
            ) from None


def _wait(result: Any, job: FlinkJob) -> None:
    """Waits for a job's end, which comes at the latest with the wait's."""
    told = 0
    try:
        while not PipelineState.is_terminal(result.state):
            failures = job.failures()
            _raise_stop(failures)
            if len(failures) > told:
                PROGRESS.warning("Flink tries again what failed: %s", last_words(failures[0]))
            told = len(failures)
            time.sleep(0.5)
        _raise_stop(job.failures())
        result.wait_until_finish()
    except RuntimeError:  # the job's own end
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            job.end()
        raise


def _raise_stop(failures: list[dict[str, Any]]) -> None:
    for failure in failures:
        if found := _STOP.findall(failure["stacktrace"]):
            raise PipelineStop(found[-1])


def last_words(failure: dict[str, Any]) -> str:
    """The line that tells most: the last of the innermost cause's message."""
    innermost = failure["stacktrace"].rpartition("Caused by: ")[2]
    lines = re.split(r"\n\s+at ", innermost)[0].strip().splitlines()
    return lines[-1] if lines else failure["exceptionName"]
