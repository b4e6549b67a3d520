"""`python -m pipeline parts`: what each optional part is, costs, and is used by."""

from pathlib import Path

from rich.console import Console

from pipeline.console import table, tell_next
from pipeline.parts import catalogue
from pipeline.parts.catalogue import Part
from pipeline.parts.plan import removal
from pipeline.parts.usage import used_by


def tell(project: Path, console: Console) -> int:
    """Prints the parts; the exit code comes back."""
    parts = catalogue.of_project(project).parts
    if not parts:
        console.print("All optional parts are off.")
        return 0
    made = table("part", "files", "lines", "packages")
    for part in parts.values():
        plan = removal(project, [part.name])
        made.add_row(part.name, f"{plan.files:,}", f"{plan.lines:,}", f"{len(plan.packages):,}")
    console.print(made)
    console.print("What goes when only that part goes; packages that nothing else needs.\n")
    for part in parts.values():
        console.print(f"[bold]{part.name}[/]: {part.what}. {_use(project, part)}")
    console.print()
    tell_next(
        console,
        {
            f"python3 -m pipeline parts remove {next(iter(parts))} --dry-run": "what would go",
            "docs/parts.md": "what each brings, and how to get one back",
        },
    )
    return 0


def _use(project: Path, part: Part) -> str:
    if not part.settings:
        return "It has commands of its own."
    users = used_by(project, part.settings)
    return f"Set in configs/: {', '.join(users)}." if users else "No configuration sets it."
