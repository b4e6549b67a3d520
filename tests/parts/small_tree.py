"""A project of a few files with two parts, and what both are built on."""

import textwrap
from pathlib import Path

from tests.parts import clones

_FILES = {
    "pipeline/parts/parts.toml": """\
        @ blue {
        [part.blue]
        what = "the blue one"
        settings = ["blue", "mode=fast"]

        @ }
        @ red {
        [part.red]
        what = "the red one"

        @ }
        [shared]
        @ base {
        base = [
            "blue", @ blue
            "red", @ red
        ]
        @ }

        [files]
        paths = [
            "blue", @ blue
            "blue/red.py", @ blue and red
            "base.py", @ base
            "both.py", @ blue and red
            "docs/deep/red.md", @ red
        ]
        """,
    "pipeline/cli.py": """\
        import os
        import blue  @ blue
        import red  @ red
        import base  @ base

        print(os.name)
        @ blue {
        print(blue)

        @ }
        @ red {
        print(red)

        @ }
        print(base)  @ base
        """,
    "nested.py": """\
        a = 1


        @ blue {
        def one():
            return 1
            @ red {

            return 2
            @ }


        @ }
        def two():
            return 2
        """,
    "end.yaml": """\
        a: 1

        @ red {
        b: 2
        @ }
        """,
    "README.md": """\
        # Words

        | a | b |
        | --- | --- |
        | core | stays |
        | blue | [goes](blue/page.md) <!-- : blue --> |
        """,
    "configs/base.yaml": """\
        name: base
        @ blue {
        blue: {size: 3}
        @ }
        """,
    "blue/one.py": "import base\n",
    "blue/page.md": "Blue.\n",
    "blue/red.py": "import red\n",
    "base.py": "print('base')\n",
    "both.py": "print('both')\n",
    "docs/deep/red.md": "Red.\n",
    "plain.py": "print('core')\n",
}


def make(folder: Path) -> Path:
    """Writes the project, with git; `@` stands for a mark, so that this file has none itself."""
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        marked = textwrap.dedent(text).replace("<!-- : ", "<!-- part: ").replace("@ ", "# part: ")
        path.write_text(marked)
    (folder / "picture.bin").write_bytes(b"\xff\x00\xfe")
    clones.commit(folder)
    return folder
