"""What this machine is, whether the pipeline can run on it, and what to type if it can't.

`Host` holds the facts, `this_host` looks at the machine, and the decisions are functions of the
facts alone. Set-up runs this before there is an environment: standard library only, and it
parses on Python 3.6, so that an old `python3` gets a sentence and not a traceback.
"""

import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
from typing import Iterator, List, NamedTuple, Optional, Tuple

PYTHON = (3, 11)
GLIBC = (2, 39)  # ML Metadata's and TensorFlow Data Validation's wheels are manylinux_2_39
GIB = 5.0  # 3.5 measured for `.venv`, whose files are shared with uv's cache; the rest is margin

NEXT_RELEASE = {"bookworm": "trixie", "jammy": "noble"}  # whose archive has a newer glibc


class Host(NamedTuple):
    """What decides whether, and how, a machine can run the pipeline."""

    system: str
    machine: str
    python: Tuple[int, int]
    glibc: Optional[Tuple[int, int]]  # None: the C library is another one
    codename: str  # of the Debian or Ubuntu release, or of the one it derives from; "" elsewhere
    has_apt: bool
    has_venv: bool
    has_headers: bool
    compiler: str  # "" when there is none
    gib_free: float


def problems(host: Host) -> List[str]:
    """Returns a sentence for each thing that keeps `host` from running the pipeline."""
    if host.system == "Windows":
        return ["TFX does not run on Windows: type the same in WSL 2 with Ubuntu 24.04."]
    if (host.system, host.machine) != ("Linux", "x86_64"):
        system = "macOS" if host.system == "Darwin" else host.system
        return [
            "TFX's packages are for Linux on x86-64 only, and this is %s on %s: type the same on "
            "such a machine." % (system, host.machine)
        ]
    if host.python != PYTHON:
        return [
            "Python 3.11 is needed, and this is %d.%d: type `sudo apt-get install python3.11 "
            "python3.11-venv python3.11-dev` (Debian 12) or `uv python install 3.11` (elsewhere), "
            "and then `PYTHON=python3.11 make ...`." % host.python
        ]
    return list(missing_parts(host))


def missing_parts(host: Host) -> Iterator[str]:
    """Yields what a machine of the right kind, with the right Python, still lacks."""
    if not host.has_venv:
        yield "Python's venv module is missing: type `sudo apt-get install python3.11-venv`."
    if not host.has_headers:
        yield (
            "Python's headers are missing, and one package is compiled with them: type "
            "`sudo apt-get install python3.11-dev`."
        )
    if not host.compiler:
        yield (
            "A C++ compiler is missing, and one package is compiled with it: type "
            "`sudo apt-get install g++`."
        )
    if host.glibc is None:
        yield "TFX's packages need the C library glibc: type the same on Debian or Ubuntu."
    elif host.glibc < GLIBC and not needs_private_libc(host):
        yield (
            "glibc 2.39 is needed, and this is %d.%d: type the same on Debian 12 or 13, or on "
            "Ubuntu 22.04 or 24.04." % host.glibc
        )
    if host.gib_free < GIB:
        yield (
            "%.0f GiB of disk are needed here, and %.1f are free: make room (for example with "
            "`pip cache purge`), and type the same again." % (GIB, host.gib_free)
        )


def needs_private_libc(host: Host) -> bool:
    """Says whether glibc is too old, and the next release's archive has a newer one."""
    too_old = host.glibc is not None and host.glibc < GLIBC
    return too_old and host.has_apt and host.codename in NEXT_RELEASE


def this_host(environment_folder: str) -> Host:
    """Looks at this machine; `environment_folder` is what the disk is needed for."""
    compilers = [os.environ.get("CXX", ""), "g++", "c++", "clang++"]
    include = sysconfig.get_paths()["include"]
    return Host(
        system=platform.system(),
        machine=platform.machine(),
        python=(sys.version_info[0], sys.version_info[1]),
        glibc=glibc_version(),
        codename=release_codename(),
        has_apt=bool(shutil.which("apt-get") and shutil.which("dpkg-deb")),
        # Debian and Ubuntu ship both apart from Python.
        has_venv=all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
        has_headers=os.path.exists(os.path.join(include, "Python.h")),
        compiler=next((name for name in compilers if name and shutil.which(name)), ""),
        gib_free=gib_free(environment_folder),
    )


def glibc_version() -> Optional[Tuple[int, int]]:
    """Returns glibc's version, None where the C library is another one."""
    try:
        found = re.match(r"glibc (\d+)\.(\d+)", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError, OSError):
        return None
    return (int(found.group(1)), int(found.group(2))) if found else None


def release_codename(os_release: str = "/etc/os-release") -> str:
    """Returns the codename of the Debian or Ubuntu release, "" elsewhere."""
    try:
        with open(os_release) as lines:
            fields = dict(line.strip().split("=", 1) for line in lines if "=" in line)
    except OSError:
        return ""
    return (fields.get("UBUNTU_CODENAME") or fields.get("VERSION_CODENAME", "")).strip('"')


def gib_free(folder: str) -> float:
    """Returns the room for `folder`, counting what an earlier attempt has already put there."""
    room = shutil.disk_usage(os.path.dirname(folder)).free
    if room < GIB * 2**30:
        paths = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
        room += sum(os.lstat(path).st_size for path in paths)
    return room / 2**30
