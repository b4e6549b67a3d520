"""The part `patterns`: the book's thirty patterns, each a configuration that runs."""

from pathlib import Path
from typing import Annotated

import typer

from components.errors import PipelineStop
from pipeline.command_line import command


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "Data and settings")(patterns)


def patterns(
    prove: Annotated[
        bool,
        typer.Option("--prove", help="Run them all, and write what they show into their heads."),
    ] = False,
    only: Annotated[
        list[int] | None, typer.Option(metavar="N", help="With --prove: these; may be repeated.")
    ] = None,
) -> int:
    """List the book's thirty patterns, with the command that runs each."""
    from rich.console import Console

    from pipeline.patterns import effects

    console = Console(highlight=False, soft_wrap=True, markup=False)
    if prove:
        numbers = only or [*effects.files()]
        if unknown := sorted({*numbers} - {*effects.files()}):
            raise PipelineStop(f"--only {unknown[0]}: no pattern has it; make patterns lists them.")
        return _prove(numbers)
    for path in effects.files().values():
        title = path.read_text("utf-8").splitlines()[0].removeprefix("# ").partition(":")[0]
        console.print(f"{title:<31} make run-local CONFIG=patterns/{path.stem}")
    return 0


def _prove(numbers: list[int]) -> int:
    """Each in a process of its own, one for each processor; 1 if an effect is not there."""
    import os
    import subprocess
    import sys
    from concurrent.futures import ThreadPoolExecutor

    from pipeline.loading import PROJECT

    if len(numbers) == 1:
        return _prove_one(numbers[0])
    command = [sys.executable, "-m", "pipeline", "patterns", "--prove", "--only"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ended = pool.map(
            lambda number: subprocess.run([*command, str(number)], cwd=PROJECT, check=False),
            numbers,
        )
        return max(done.returncode for done in ended)


def _prove_one(number: int) -> int:
    import tempfile

    from pipeline.patterns import effects
    from pipeline.telling import output_to

    path = effects.files()[number]
    with tempfile.TemporaryDirectory() as folder, output_to():  # TensorFlow's words
        there, words = effects.shown(number, Path(folder))
    print(f"{path.stem}: {'' if there else 'NOT SEEN: '}{words}", flush=True)
    if there:
        _write(path, words)
    return 0 if there else 1


def _write(path: Path, seen: str) -> None:
    """Puts what was seen at the end of a file's head."""
    import textwrap

    from components import files

    lines = path.read_text("utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    head = lines[:end]
    start = next((n for n, line in enumerate(head) if line.startswith("# Seen: ")), end)
    told = textwrap.wrap(f"Seen: {seen}", 98, initial_indent="# ", subsequent_indent="#   ")
    files.write_atomically(str(path), "\n".join([*head[:start], *told, *lines[end:]]) + "\n")
