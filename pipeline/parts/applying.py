"""Does what was planned. Killed at any moment and done again, it ends with the same files.

Each file is replaced by a rename. The command line loses its imports first, so that it always
starts, then every other file its lines, then folders go; `parts.toml`, which knows what belongs to
whom, comes last. A file with the parts' names lies beside all of it until then.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from components.errors import PipelineStop
from pipeline.parts import catalogue
from pipeline.parts.plan import Plan

UNFINISHED = ".parts-removal"
_FIRST = "pipeline/cli.py"


def begun(project: Path) -> list[str]:
    """What a removal that was killed had to take off."""
    unfinished = project / UNFINISHED
    _temporary(unfinished).unlink(missing_ok=True)  # killed before it began
    return unfinished.read_text(encoding="utf-8").split() if unfinished.exists() else []


def apply(project: Path, plan: Plan) -> None:
    """Takes the parts off.

    Raises:
      PipelineStop: docs/patterns.md could not be made anew; all else is done.
    """
    _write(project / UNFINISHED, "".join(f"{name}\n" for name in plan.names))
    edited = {**plan.edited}
    last = edited.pop(catalogue.FILE, None)
    for file in sorted(edited, key=lambda file: (file != _FIRST, file)):
        _write(project / file, edited[file])
    for path in plan.paths:
        _delete(project, path)
    _rewrite_patterns(project)
    if last is not None:
        _write(project / catalogue.FILE, last)
    (project / UNFINISHED).unlink()


def _rewrite_patterns(project: Path) -> None:
    """Makes `docs/patterns.md` anew: it says of each pattern whether its part is there."""
    if not (project / "pipeline" / "patterns").is_dir():
        return
    command = [sys.executable, "-m", "pipeline", "patterns", "--write"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PipelineStop(
            f"docs/patterns.md could not be made anew:\n{done.stderr[-1000:]}\n"
            "Put that right, and type the same again: it goes on."
        )


def _delete(project: Path, path: str) -> None:
    """Deletes a file or folder, and the folders above that it leaves empty."""
    target = project / path
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    for above in target.parents:
        if above == project or (above.is_dir() and set(os.listdir(above)) - {"__pycache__"}):
            break
        shutil.rmtree(above, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    """Replaces a file whole, with its mode."""
    temporary = _temporary(path)
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        shutil.copymode(path, temporary)
    os.replace(temporary, path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")
