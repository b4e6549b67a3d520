import pytest

from pipeline.setup.private_libc import apt_sources, next_release_sources

DEBIAN = """\
Types: deb
# a snapshot could stand here
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
DEBIAN_NEXT = DEBIAN.replace("bookworm", "trixie").replace("main contrib", "main")
UBUNTU = """\
# See http://help.ubuntu.com/community/UpgradeNotes
deb http://archive.ubuntu.com/ubuntu/ jammy main restricted
# deb-src http://archive.ubuntu.com/ubuntu/ jammy main restricted
deb http://archive.ubuntu.com/ubuntu/ jammy-updates main restricted # a comment
deb http://archive.ubuntu.com/ubuntu/ jammy universe
deb http://archive.ubuntu.com/ubuntu/ jammy-backports main restricted
deb-src http://archive.ubuntu.com/ubuntu/ jammy main
deb [arch=amd64 signed-by=/k.gpg] http://security.ubuntu.com/ubuntu/ jammy-security main
"""
UBUNTU_NEXT = """\
deb http://archive.ubuntu.com/ubuntu/ noble main
deb http://archive.ubuntu.com/ubuntu/ noble-updates main
deb [arch=amd64 signed-by=/k.gpg] http://security.ubuntu.com/ubuntu/ noble-security main
"""


@pytest.mark.parametrize(
    ("name", "codename", "text", "rewritten"),
    [
        ("debian.sources", "bookworm", DEBIAN, DEBIAN_NEXT),
        ("sources.list", "jammy", UBUNTU, UBUNTU_NEXT),
    ],
)
def test_sources_name_the_next_release(name, codename, text, rewritten):
    (following,) = next_release_sources({name: text}, codename).values()
    assert following.splitlines() == rewritten.splitlines()


def test_inline_key_is_kept():
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc=\n"
    stanza = "Types: deb deb-src\nURIs: http://m\nSuites: jammy\nComponents: main universe\n"
    (text,) = next_release_sources({"u.sources": stanza + key}, "jammy").values()
    assert text == "Types: deb\nURIs: http://m\nSuites: noble\nComponents: main\n" + key


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("node.sources", "Types: deb\nURIs: https://n\nSuites: nodistro\nComponents: main\n"),
        ("off.sources", DEBIAN.replace("Types: deb\n", "Types: deb\nEnabled: no\n")),
        ("src.sources", DEBIAN.replace("Types: deb\n", "Types: deb-src\n")),
        ("docker.list", "deb [arch=amd64] https://d/debian bookworm stable\n"),
        ("pgdg.list", "deb https://p/debian bookworm-pgdg main\n"),
        ("empty.list", ""),
    ],
)
def test_sources_of_others_are_left_out(name, text):
    assert next_release_sources({name: text}, "bookworm") == {}


def test_both_formats_are_found_and_nothing_else(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    for name in ("sources.list", "sources.list.d/a.sources", "sources.list.d/b.list.save"):
        (tmp_path / name).write_text(name)
    assert set(apt_sources(str(tmp_path))) == {"sources.list", "a.sources"}
