"""The commands of this folder: parts, parts remove."""

from typing import Annotated

import typer

from pipeline.command_line import told

app = typer.Typer(help="Show the optional parts, and take them off for good.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """Show the optional parts: what each is, what it costs, and what uses it."""
    if context.invoked_subcommand is not None:
        return

    def tell() -> int:
        from rich.console import Console

        from pipeline.loading import PROJECT
        from pipeline.parts import listing

        return listing.tell(PROJECT, Console(highlight=False, soft_wrap=True))

    raise SystemExit(told(tell))


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Parts, as `parts` lists.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Take parts off for good: their code, tests, settings, commands, packages and docs."""

    def take_off() -> int:
        from pipeline.loading import PROJECT
        from pipeline.parts import removing

        return removing.remove(PROJECT, names, dry_run, yes)

    raise SystemExit(told(take_off))
