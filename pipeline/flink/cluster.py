"""A real Flink cluster on this machine, for trying: `make flink-local`, `make flink-stop`.

Everything lies in build/flink: `flink` and `jars` are downloaded once; `run` has what a running
cluster writes. Its processes, and the workers that they start, are known by a variable in their
environment.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from components.errors import PipelineStop
from pipeline.parts import PROJECT

FOLDER = PROJECT / "build" / "flink"
JOBS, REST = 8099, 8081
TASK_MANAGERS = 2
_HERE, _RUN = Path(__file__).parent, FOLDER / "run"
_FLINK, _JARS = FOLDER / "flink", FOLDER / "jars"
_MARK = "PIPELINE_FLINK"
_PATIENCE = 90.0
_OPEN = ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent")
_JAVA = [
    "java",
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPEN),
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
]
# The heap is taskmanager.memory.task.heap.size and 128 MiB; direct memory the same of what is off
# the heap, and the network's.
_TASK_MANAGER = ["-Xmx828m", "-XX:MaxDirectMemorySize=1152m", "-XX:MaxMetaspaceSize=384m"]


def start(show: Callable[[str], None]) -> None:
    """Brings the cluster up, or says why it does not come up, and leaves nothing behind then.

    Raises:
      PipelineStop: it can't be started.
    """
    if processes():
        raise PipelineStop("It is running already; `make flink-stop` stops it.")
    for port in (JOBS, REST):
        if _answers(port):
            raise PipelineStop(f"Port {port} is in use by another program: stop that one first.")
    _download(show)
    shutil.rmtree(_RUN, ignore_errors=True)
    (_RUN / "tmp").mkdir(parents=True)
    shutil.copy(_HERE / "flink-conf.yaml", _RUN)
    with zipfile.ZipFile(_RUN / "empty.jar", "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    try:
        _start_processes()
        _wait()
    except BaseException:
        end()
        raise
    show(f"Flink: http://localhost:{REST}, job server on localhost:{JOBS}, logs in {_RUN}")


def stop() -> bool:
    """Ends the cluster and removes what it wrote; whether there was one."""
    was_there = bool(processes())
    end()
    shutil.rmtree(_RUN, ignore_errors=True)
    return was_there


def end() -> None:
    """Ends the cluster's processes, and the workers'."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes():
            os.kill(process, number)
        until = time.monotonic() + 10
        while processes() and time.monotonic() < until:
            time.sleep(0.2)


def processes() -> list[int]:
    """The numbers of all processes of the cluster, and of its workers."""
    found, mark = [], f"{_MARK}={_RUN}\0".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environment.read_bytes():
                found.append(int(environment.parent.name))
        except OSError:  # another person's, or it has just ended
            continue
    return found


def _download(show: Callable[[str], None]) -> None:
    """Flink as the lock file has it, and Beam's job server as pom.xml has it."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise PipelineStop(
                f"There is no {program} here. On Debian: apt-get install openjdk-17-jre-headless "
                "maven"
            )
    uv = str(PROJECT / ".venv" / "bootstrap" / "bin" / "uv")
    FOLDER.mkdir(parents=True, exist_ok=True)
    locked = str(FOLDER / "requirements.txt")
    _finish([uv, "export", "--frozen", "--no-header", "--only-group", "flink", "-o", locked])
    wanted = Path(locked).read_bytes() + (_HERE / "pom.xml").read_bytes()
    there = FOLDER / "downloaded"
    if there.is_file() and there.read_bytes() == wanted:
        return
    show("Downloading Flink and Beam's job server, 330 MB")
    for folder in (_FLINK, _JARS):
        shutil.rmtree(folder, ignore_errors=True)
    _finish([sys.executable, "-m", "pip", "install", "--target", str(_FLINK), "-r", locked])
    maven = ["mvn", "-B", "-f", str(_HERE / "pom.xml"), "dependency:copy-dependencies"]
    maven += ["-DincludeScope=runtime", "-DexcludeGroupIds=org.apache.flink"]
    _finish([*maven, f"-DoutputDirectory={_JARS}"])
    there.write_bytes(wanted)


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise PipelineStop("\n".join([f"{' '.join(command)} failed:", *lines[-5:]]))


def _start_processes() -> None:
    classes = ["-cp", f"{_FLINK}/pyflink/lib/*:{_JARS}/*"]
    runtime = "org.apache.flink.runtime"
    configured = ["--configDir", str(_RUN)]
    job_manager = f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint"
    _begin("jobmanager", ["-Xmx700m", *classes, job_manager, *configured])
    for number in range(TASK_MANAGERS):
        task_manager = [*_TASK_MANAGER, *classes, f"{runtime}.taskexecutor.TaskManagerRunner"]
        _begin(f"taskmanager-{number}", [*task_manager, *configured])
    server = ["-Xmx700m", *classes, "org.apache.beam.runners.flink.FlinkJobServerDriver"]
    server += [f"--flink-master=localhost:{REST}", "--job-host=localhost", f"--job-port={JOBS}"]
    server += ["--artifact-port=0", "--expansion-port=-1", f"--artifacts-dir={_RUN}/artifacts"]
    _begin("jobserver", server)


def _begin(name: str, arguments: list[str]) -> None:
    log_settings = f"-Dlog4j.configurationFile={_HERE}/log4j.properties"
    with open(_RUN / f"{name}.log", "wb") as log:
        subprocess.Popen(
            [*_JAVA, log_settings, *arguments], cwd=_RUN, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, _MARK: str(_RUN), "TMPDIR": str(_RUN / "tmp")},
        )  # fmt: skip


def _wait() -> None:
    """Until the job server answers, and all TaskManagers are there."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if len(processes()) < TASK_MANAGERS + 2:
            break
        if _answers(JOBS) and _slots() == TASK_MANAGERS:
            return
        time.sleep(0.5)
    raise PipelineStop(f"The cluster did not come up; see the logs in {_RUN}.")


def _answers(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("localhost", port)) == 0


def _slots() -> int:
    try:
        with urllib.request.urlopen(f"http://localhost:{REST}/overview", timeout=5) as reply:
            return int(json.load(reply)["slots-total"])
    except (OSError, ValueError, KeyError):
        return 0
