"""What `adopt` says: each column, what was found, and what to type next."""

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.adopt.columns import LEAK, OVERRULE, Decision, shortened
from pipeline.adopt.profiling import Value
from pipeline.adopt.proposal import Proposal
from pipeline.console import make, table, tell_next

_MOST_COLUMNS = 60
_WIDTH = 160
_FINDINGS = {
    "leakage": "Leaks",
    "id": "Ids",
    "time": "Times",
    "constant": "Constants",
    "duplicate": "Duplicates",
    "sparse": "Nearly empty",
    "text": "Free text",
    "categories": "Too many categories",
    "choice": "Left out",
}
_STYLES = {"leakage": "red"}
_TYPES = {"INT": "integer", "FLOAT": "number", "BYTES": "text"}


def tell(console: Console, proposal: Proposal) -> None:
    """Prints the columns and the findings."""
    rows = f"{proposal.rows:,} rows" if proposal.is_all else f"The first {proposal.rows:,} rows"
    target = proposal.target
    console.print(f"\n{rows}, {len(proposal.decisions) + 1:,} columns.", markup=False)
    console.print(
        f"{proposal.label.name}: {target.problem}, {target.why}.", markup=False, highlight=False
    )
    for note in target.notes:
        console.print(f"  {note}", markup=False)
    console.print()
    wide = Console(
        file=console.file,
        width=max(console.width, _WIDTH),
        highlight=False,
        force_terminal=console.is_terminal,
    )
    wide.print(_columns(proposal))
    for line in _findings(proposal.decisions):
        console.print(line)


def _columns(proposal: Proposal) -> Table:
    shown = proposal.decisions[:_MOST_COLUMNS]
    made = table("column", "type", "missing", "distinct")
    for heading in ("examples", "becomes", "why"):
        made.add_column(heading, no_wrap=heading != "why")
    rows = [_row(decision) for decision in shown]
    for number, column in enumerate(made.columns[:-1]):
        column.min_width = max(len(str(column.header)), *(len(cells[number]) for cells in rows))
    for decision, cells in zip(shown, rows, strict=True):
        style = _STYLES.get(decision.excluded, "yellow") if decision.excluded else None
        made.add_row(*(escape(cell) for cell in cells), style=style)
    if (left := len(proposal.decisions) - _MOST_COLUMNS) > 0:
        made.add_row(f"... and {left:,} more")
    return made


def _row(decision: Decision) -> list[str]:
    column = decision.column
    kinds = " + ".join(str(settings["kind"]) for settings in decision.features)
    return [
        shortened(column.name, 24),
        _TYPES[column.kind],
        f"{column.missing_fraction:.0%}" if column.missing else "",
        f"{column.distinct:,}",
        ", ".join(_example(value) for value, _ in column.frequent[:2]),
        f"- ({decision.excluded})" if decision.excluded else kinds,
        decision.why,
    ]


def _example(value: Value) -> str:
    return shortened(f"{value:.5g}" if isinstance(value, float) else value, 12)


def _findings(decisions: list[Decision]) -> Iterator[str]:
    for reason, title in _FINDINGS.items():
        found = [d for d in decisions if d.excluded == reason]
        if not found:
            continue
        style = "bold red" if reason == "leakage" else "bold"
        yield f"\n[{style}]{title}[/], left out. {escape(_overrule(reason))}"
        yield from (
            f"  {escape(shortened(d.column.name, 40))}: {escape(d.why)}" for d in found[:20]
        )
        if len(found) > 20:
            yield f"  ... and {len(found) - 20:,} more"


def _overrule(reason: str) -> str:
    if reason == "leakage":
        return f"One column that gives the label away ({LEAK} or more): {OVERRULE[reason]}."
    return f"To overrule: {OVERRULE[reason]}."


def tell_written(console: Console, name: str, written: list[str], renamed: list[str]) -> None:
    """Prints what was written and renamed, and what to type next."""
    console.print(f"\nWrote {' and '.join(written)}.", markup=False, highlight=False)
    for sentence in renamed:
        console.print(f"  {sentence}", markup=False, highlight=False)
    tell_next(
        console,
        {
            f"make config CONFIG={name}": "look at the settings, and the reasons in the file",
            make("run-local", name): "from the data to version 1",
        },
    )
