"""What a person sees of an evaluation."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from components.continued_evaluation import history
from components.continued_evaluation.decision import Action
from components.continued_evaluation.evidence import OVERALL, Value
from pipeline.config import Config
from pipeline.console import make, shown, table, tell_next
from pipeline.workspace import Workspace

_DRIFTS = 4
_WORDS: dict[Action, str] = {
    "keep": "[green]keep[/]",
    "retrain": "[yellow]retrain[/]",
    "roll_back": "[red]roll back[/]",
    "investigate": "[red]investigate[/]",
}


def tell(record: history.Record, model: str, console: Console) -> None:
    """Prints metrics, drift and the decision with its reasons."""
    console.print()
    _tell_metrics(record, console)
    _tell_moved(record, console)
    followed = history.followed(model, record.id)
    console.print(
        f"\nVersion {record.evidence.champion} on span {record.evidence.span}: "
        f"[bold]{_WORDS[record.decision.action]}[/]"
    )
    for reason in record.decision.reasons:
        console.print(f"  {escape(reason.text)} [dim]({reason.leads_to.replace('_', ' ')})[/]")
    if followed:
        console.print(f"  {followed.time}: {escape(followed.what)}")


def _tell_metrics(record: history.Record, console: Console) -> None:
    """A row a metric, a column a model, over all rows."""
    found = record.evidence
    titles = {
        "logged": f"v{found.champion} as logged",
        "champion": f"champion (v{found.champion})",
        "previous": f"previous (v{found.previous})",
        "heuristic": "heuristic",
    }
    models = [model for model in titles if model in found.metrics]
    heading = f"span {found.span}, {found.rows.total:,} rows"
    promoted = found.promoted.get("champion", {}).get(OVERALL, {})
    lines = table(heading, *(titles[model] for model in models), "at promotion")
    for metric in found.metrics[models[0]][OVERALL]:
        values = [_shown(found.metrics[model][OVERALL].get(metric)) for model in models]
        before = promoted.get(metric)
        lines.add_row(metric, *values, "-" if before is None else f"{before:.4f}")
    console.print(lines)


def _shown(value: Value | None) -> str:
    if value is None or value.value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} ±{(value.high - value.low) / 2:.4f}"


def _tell_moved(record: history.Record, console: Console) -> None:
    """The columns that are nearest to their limits, or beyond."""
    moved = sorted(record.evidence.moved, key=lambda m: m.value / m.limit, reverse=True)[:_DRIFTS]
    if moved:
        console.print()
        lines = table("drift (the largest)", "against", "value", "limit")
        for each in moved:
            lines.add_row(each.column, each.against, f"{each.value:.3f}", f"{each.limit:g}")
        console.print(lines)


def tell_last(
    model: str, config_name: str, config: Config, workspace: Workspace, console: Console
) -> None:
    """Writes the page, and prints where it is and what to type next."""
    from pipeline.continued_evaluation import page

    records = history.read_all(model)
    followed = {r.id: f for r in records if (f := history.followed(model, r.id))}
    path = workspace.reports / f"{config.registry.model}-evaluations.html"
    page.write_page(records, followed, config.registry.model, path)
    console.print(f"\n{shown(Path(model) / history.FOLDER / records[-1].id)} (all that was found)")
    console.print(f"{shown(path)} (every evaluation so far, drawn)\n")
    commands = {make("evaluations", config_name): "the history"}
    last = records[-1]
    if last.decision.action == "roll_back" and last.id not in followed:
        commands[make("rollback", config_name)] = "make the version before it champion again"
    if last.decision.action == "investigate":
        commands[make("versions", config_name)] = "all versions and their labels"
    tell_next(console, commands)
