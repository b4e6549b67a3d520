"""A newer C library for one interpreter, where the distribution's own is too old.

The next release's C and C++ libraries are fetched with apt, from the mirror and with the keys of
the machine's own apt sources, into a folder of ours; a copy of the interpreter is then told to
load those. Nothing else on the machine changes, root is not needed, and programs that this
Python starts use the machine's own libraries as ever.

Part of set-up: standard library only, and parses on Python 3.6 (see `host`).
"""

import glob
import os
import re
import shutil
import subprocess
from typing import Callable, Dict, List

from pipeline.setup import host

PACKAGES = "libc6 libstdc++6 libgcc-s1"
LOADER = "ld-linux-x86-64.so.2"


def fetch(run: Callable[..., None], codename: str, folder: str) -> None:
    """Unpacks the libraries of the release after `codename` into `folder`."""
    work = folder + "-packages"
    for name in ("sources", "lists/partial", "archives/partial", "debs"):
        os.makedirs(os.path.join(work, name))
    for name, text in next_release_sources(apt_sources(), codename).items():
        with open(os.path.join(work, "sources", name), "w") as source:
            source.write(text)
    # The download decides: an update that fails for one of several sources does no harm.
    script = (
        'cd "$0/debs"; apt-get "$@" update; apt-get "$@" download {0}'
        ' && for deb in *.deb; do dpkg-deb --extract "$deb" "$0/root" || exit 1; done'
    ).format(PACKAGES)
    title = "Fetching the C library of %s" % host.NEXT_RELEASE[codename]
    run(title, ["sh", "-c", script, work] + apt_options(work))
    os.makedirs(folder)
    for parent in ("lib", "usr/lib"):
        for library in glob.glob(os.path.join(work, "root", parent, "x86_64-linux-gnu", "*.so*")):
            shutil.copy(library, folder, follow_symlinks=False)
    shutil.rmtree(work)


def use(run: Callable[..., None], patchelf: str, original: str, copy: str, folder: str) -> None:
    """Replaces `copy`, a link to the interpreter `original`, by a copy that loads `folder`'s."""
    os.remove(copy)
    shutil.copy(original, copy)
    # Behind ours comes the old path: another libpython would be picked up without it.
    old_path = subprocess.check_output([patchelf, "--print-rpath", original]).decode().strip()
    search_path = [folder] + old_path.replace("$ORIGIN", os.path.dirname(original)).split(":")
    change = [patchelf, "--set-interpreter", os.path.join(folder, LOADER), "--force-rpath"]
    change += ["--set-rpath", ":".join(part for part in search_path if part)]
    # Loaded first: TensorFlow's libraries would bring the old one, and ML Metadata then fails.
    run("Making Python use it", change + ["--add-needed", "libstdc++.so.6", copy])


def apt_options(work: str) -> List[str]:
    """Makes apt use `work` alone: nothing of the machine's lists, pins or packages."""
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": os.path.join(work, "sources"),
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": work,
        "Dir::State::Lists": os.path.join(work, "lists"),
        "Dir::State::status": "/dev/null",
        "Dir::Cache": work,
        "Dir::Cache::Archives": os.path.join(work, "archives"),
        "APT::Default-Release": "",
        "APT::Sandbox::User": "root",  # as root, apt's own user could not write into `work`
        "Acquire::Languages": "none",
    }
    return ["--option=%s=%s" % setting for setting in settings.items()]


def apt_sources(etc: str = "/etc/apt") -> Dict[str, str]:
    """Returns the machine's apt sources, text by file name."""
    sources = {}
    for path in glob.glob(os.path.join(etc, "sources.list*")):
        for file in sorted(glob.glob(os.path.join(path, "*")) if os.path.isdir(path) else [path]):
            if file.endswith((".list", ".sources")):
                with open(file, encoding="utf-8") as source:
                    sources[os.path.basename(file)] = source.read()
    return sources


def next_release_sources(sources: Dict[str, str], codename: str) -> Dict[str, str]:
    """Rewrites apt source files (text by file name) for the release after `codename`.

    Only the main component of the distribution's own suites is kept; what holds none of it, such
    as third parties' sources, is left out.
    """
    following = host.NEXT_RELEASE[codename]
    suites = {codename + pocket: following + pocket for pocket in ("", "-updates", "-security")}
    rewritten = {}
    for name, text in sources.items():
        if name.endswith(".sources"):
            parts = [rewrite_stanza(stanza, suites) for stanza in re.split(r"\n\s*\n", text)]
        else:
            parts = [rewrite_line(line, suites) for line in text.splitlines()]
        rewritten[name] = "\n".join(part for part in parts if part)
    return {name: text for name, text in rewritten.items() if text}


def rewrite_line(line: str, suites: Dict[str, str]) -> str:
    """Rewrites a line such as `deb [options] http://mirror jammy main restricted`."""
    parsed = re.match(r"\s*deb\s+((?:\[[^]]*\]\s+)?\S+)\s+(\S+)\s+([^#]*)", line)
    if not parsed or parsed.group(2) not in suites or "main" not in parsed.group(3).split():
        return ""
    return "deb %s %s main" % (parsed.group(1), suites[parsed.group(2)])


def rewrite_stanza(stanza: str, suites: Dict[str, str]) -> str:
    """Rewrites a stanza of the `Types: deb` format; an inline key in it stays."""
    fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*?)[ \t]*$", stanza, re.M))
    kept = [suites[suite] for suite in fields.get("Suites", "").split() if suite in suites]
    is_binary = "deb" in fields.get("Types", "").split() and fields.get("Enabled") != "no"
    if not (kept and is_binary and "main" in fields.get("Components", "").split()):
        return ""
    for field, value in (("Types", "deb"), ("Suites", " ".join(kept)), ("Components", "main")):
        stanza = re.sub("^%s:.*$" % field, "%s: %s" % (field, value), stanza, flags=re.M)
    return stanza.strip("\n") + "\n"
