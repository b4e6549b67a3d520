"""`python -m pipeline parts remove`: shows what goes, asks, and has it taken off."""

import subprocess
import sys
import textwrap
from collections.abc import Collection
from pathlib import Path

import typer

from components.errors import PipelineStop
from pipeline.parts import catalogue
from pipeline.parts.applying import UNFINISHED, apply, begun
from pipeline.parts.plan import Plan, as_known, chosen, removal
from pipeline.parts.usage import refuse_settings_in_use


def remove(project: Path, asked: Collection[str], dry_run: bool, yes: bool) -> int:
    """Shows what goes, asks, and takes parts off; the exit code comes back.

    Raises:
      PipelineStop: there are changes that are not committed, or no part has such a name, or a
        configuration needs it.
    """
    unfinished = begun(project)
    known = catalogue.of_project(project)
    names = sorted({*chosen(known, set(map(as_known, asked)) - set(unfinished)), *unfinished})
    plan = removal(project, names)
    refuse_settings_in_use(plan, project, known)
    if dry_run:
        _show(plan, unfinished)
        print("\nNothing was changed: --dry-run.")
        return 0
    is_under_git = bool(unfinished) or _is_committed(project)
    _show(plan, unfinished)
    if not _agreed(yes, is_under_git):
        return 0
    apply(project, plan)
    _tell_what_next(plan, is_under_git)
    return 0


def _is_committed(project: Path) -> bool:
    """Whether git has all that is there; False without git.

    Raises:
      PipelineStop: it has not; a removal could not be told from what was being worked on.
    """
    git = ["git", "-C", str(project)]
    try:
        done = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return False
    if done.returncode:
        return False
    changes = done.stdout.splitlines()
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise PipelineStop(
            f"There are changes that git does not have: {', '.join(c[3:] for c in changes[:3])}"
            f"{more}. Commit them first, so that `git diff` shows the removal alone and "
            "`git checkout` takes it back."
        )
    return True


def _show(plan: Plan, unfinished: list[str]) -> None:
    if unfinished:
        print(
            f"A removal of {', '.join(unfinished)} was interrupted, and goes on with this. (If git "
            f"has taken it back already, delete {UNFINISHED}.)"
        )
    print(f"Taking off {', '.join(plan.names)}, {plan.lines:,} lines of code and docs.")
    _show_some(f"{plan.files:,} whole files", plan.paths)
    _show_some(f"marked lines of {len(plan.edited)} files", sorted(plan.edited))
    _show_some(f"{len(plan.packages)} packages that nothing else needs", plan.packages)


def _show_some(title: str, names: list[str]) -> None:
    if names:
        text = textwrap.fill(", ".join(names), 96, break_on_hyphens=False, break_long_words=False)
        print(f"\n{title}:\n{textwrap.indent(text, '  ')}")


def _agreed(yes: bool, is_under_git: bool) -> bool:
    if yes:
        return True
    if not is_under_git:
        print("git does not know this folder: there is no way back but a copy of your own.")
    if not sys.stdin.isatty():
        raise PipelineStop("Nothing was removed: there is no terminal to ask on. Add --yes.")
    if typer.confirm("\nTake that off?"):
        return True
    print("Nothing was removed.")
    return False


def _tell_what_next(plan: Plan, is_under_git: bool) -> None:
    print(f"\nOff: {', '.join(plan.names)}.\n\nNext:")
    if plan.packages:
        print("  make setup        takes the packages out of .venv")
    print("  make lint test    what is left, on its own")
    if is_under_git:
        print("  git diff          what changed")
