"""Clones of the project, as it stands here."""

import os
import shutil
import subprocess
from pathlib import Path

from tests import small, warm

PROJECT = Path(__file__).parents[1]


def make(folder: Path) -> Path:
    """What git has of the project, or would have, committed in a repository of its own."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in run(PROJECT, *listing).splitlines():
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    """Commits everything, in a new repository if there is none."""
    if not (folder / ".git").exists():
        run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    run(folder, "git", *identity, "commit", "--quiet", "--allow-empty", "--message", "as it was")


def adopt_and_delete_the_example(folder: Path) -> None:
    """What a fork does: a table of its own, and the taxi's configurations gone."""
    small.write_csv(folder / "data" / "shop.csv", small.rows(300))
    pipeline(folder, "adopt", "data/shop.csv", "--label", "bought")
    example = ["configs/taxi.yaml", "configs/taxi.schema.pbtxt", "configs/patterns"]
    run(folder, "git", "rm", "-r", "--quiet", *example)
    commit(folder)


def tree(folder: Path) -> dict[str, bytes]:
    """The files, by name, that git has or would have."""
    listing = run(folder, "git", "ls-files", "--cached", "--others", "--exclude-standard")
    names = [name for name in listing.splitlines() if (folder / name).is_file()]
    return {name: (folder / name).read_bytes() for name in names}


def pipeline(folder: Path, *arguments: str) -> str:
    """Runs a command of a clone's own, and returns what it printed; it must end well."""
    code, output = warm.run(folder, arguments, small.environment_of_a_copy())
    assert code == 0, f"{' '.join(arguments)}: {output[-6000:]}"
    return output


def run(folder: Path, *command: str, **environment: str) -> str:
    """Runs a program in a folder, and returns what it printed; it must end well."""
    ours = ("PYTHONPATH", "PIPELINE_CONFIGS", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-6000:]}"
    return done.stdout
