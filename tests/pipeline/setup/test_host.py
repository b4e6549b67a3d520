import ast
from pathlib import Path

import pytest

from pipeline.setup import host

SETUP = Path(host.__file__).parent
DEBIAN_13 = host.Host(
    system="Linux",
    machine="x86_64",
    python=(3, 11),
    glibc=(2, 41),
    codename="trixie",
    has_apt=True,
    has_venv=True,
    has_headers=True,
    compiler="g++",
    gib_free=50.0,
)


def machine(**differences):
    return DEBIAN_13._replace(**differences)


@pytest.mark.parametrize(
    ("able", "private_libc"),
    [
        (machine(), False),
        (machine(codename="bookworm", glibc=(2, 36)), True),
        (machine(codename="jammy", glibc=(2, 35)), True),
        (machine(codename="", has_apt=False, glibc=(2, 42)), False),
        (machine(gib_free=host.GIB), False),
    ],
)
def test_able_machine_has_no_problems(able, private_libc):
    assert host.problems(able) == []
    assert host.needs_private_libc(able) == private_libc


@pytest.mark.parametrize(
    ("unable", "what", "what_to_type"),
    [
        (machine(system="Windows", machine="AMD64"), "Windows", "WSL 2"),
        (machine(system="Darwin", machine="arm64"), "macOS on arm64", "on such a machine"),
        (machine(machine="aarch64"), "Linux on aarch64", "on such a machine"),
        (machine(python=(3, 13)), "this is 3.13", "PYTHON=python3.11 make"),
        (machine(has_venv=False), "venv", "apt-get install python3.11-venv"),
        (machine(has_headers=False), "headers", "apt-get install python3.11-dev"),
        (machine(compiler=""), "C++ compiler", "apt-get install g++"),
        (machine(glibc=None, codename=""), "glibc", "on Debian or Ubuntu"),
        (machine(glibc=(2, 34), codename="", has_apt=False), "this is 2.34", "on Debian 12"),
        (machine(glibc=(2, 36), codename="bookworm", has_apt=False), "2.36", "on Debian 12"),
        (machine(gib_free=1.25), "1.2 are free", "pip cache purge"),
    ],
)
def test_unable_machine_gets_one_sentence_with_what_to_type(unable, what, what_to_type):
    (sentence,) = host.problems(unable)
    assert what in sentence
    assert what_to_type in sentence
    assert sentence.endswith(".")


def test_everything_missing_is_said_at_once():
    bare = machine(has_venv=False, has_headers=False, compiler="", gib_free=0.0)
    assert len(host.problems(bare)) == 4


def test_wrong_kind_of_machine_is_said_before_what_it_lacks():
    (sentence,) = host.problems(machine(system="Darwin", python=(3, 9), compiler="", glibc=None))
    assert "macOS" in sentence


@pytest.mark.parametrize(
    ("os_release", "codename"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\nNAME="Debian = good"\n', "bookworm"),
        ("VERSION_CODENAME=vanessa\nUBUNTU_CODENAME=jammy\n", "jammy"),
        ('VERSION_CODENAME="jammy"\n', "jammy"),
        ("ID=alpine\n", ""),
    ],
)
def test_codename_is_that_of_the_release_derived_from(tmp_path, os_release, codename):
    (tmp_path / "os-release").write_text(os_release)
    assert host.release_codename(str(tmp_path / "os-release")) == codename


def test_room_counts_what_an_earlier_attempt_has_used(tmp_path, monkeypatch):
    environment = tmp_path / ".venv"
    environment.mkdir()
    (environment / "half").write_bytes(b"x" * 2**20)
    free = host.gib_free(str(environment))
    monkeypatch.setattr(host, "GIB", 10.0**9)
    assert host.gib_free(str(environment)) == pytest.approx(free + 2**-10, abs=0.1)


@pytest.mark.parametrize("name", ["__init__", "bootstrap", "host", "private_libc"])
def test_old_python_can_read_what_refuses_it(name):
    ast.parse((SETUP / f"{name}.py").read_text(), feature_version=(3, 6))
