"""What a person sees of evaluations on the terminal, and how they are told in words."""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from components.continued_evaluation import history
from components.continued_evaluation.decision import Action
from components.continued_evaluation.evidence import OVERALL, Evidence, Metrics, Moved, Value
from components.continued_evaluation.history import Followed, Record
from components.registry import store
from pipeline.config import Config
from pipeline.telling import BySlice, make, metrics_table, overall, shown, table, tell_next
from pipeline.workspace import Workspace

TITLES: dict[Action, str] = {
    "investigate": "Investigate",
    "roll_back": "Roll back",
    "retrain": "Retrain",
    "keep": "Keep",
}
"""The decisions, the weightiest first."""
_STYLES = {"investigate": "red", "roll_back": "red", "retrain": "yellow", "keep": "green"}
_DRIFTS, _REASON = 4, 80


def span_name(record: Record) -> str:
    """The span as the data's pattern has it: its number or date; else the evaluation's day.

    Source: TFX counts the days since 1970-01-01 where the pattern has {YYYY}, {MM} and {DD}.
    """
    if not record.has_spans:
        return record.time[:10]
    if "{YYYY}" in record.source:
        return (date(1970, 1, 1) + timedelta(days=record.evidence.span)).isoformat()
    return str(record.evidence.span)


def judged(evidence: Evidence) -> Metrics:
    """The metrics that were judged: of the logged predictions, if there are any."""
    return evidence.metrics.get("logged") or evidence.metrics["champion"]


def metrics_to_show(records: Sequence[Record]) -> list[str]:
    """The metrics that have a limit, the newest evaluation's first; if none has, one metric."""
    limits = (limit for record in reversed(records) for limit in record.settings["limits"])
    measured = list(judged(records[-1].evidence)[OVERALL])
    limited = list(dict.fromkeys(limit["metric"] for limit in limits))
    return limited or (["auc"] if "auc" in measured else measured[:1])


def interval(value: Value | None) -> str:
    """'0.9123 (0.9001 to 0.9245)'; '-' for what cannot be computed."""
    if value is None or value.value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} ({value.low:.4f} to {value.high:.4f})"


def farthest(moved: Sequence[Moved]) -> list[Moved]:
    """The columns that are nearest to their limits or beyond, the farthest first."""
    return sorted(moved, key=lambda one: one.value / one.limit, reverse=True)


def outcome(record: Record, followed: Followed | None) -> str:
    """What came of the decision."""
    if followed is not None:
        return followed.what
    return "nothing to do" if record.decision.action == "keep" else "nothing yet"


def tell(record: Record, model: str, console: Console) -> None:
    """Prints metrics over all rows, drift, and the decision with its reasons."""
    found = record.evidence
    titles = {
        "logged": f"v{found.champion} as logged",
        "champion": f"champion (v{found.champion})",
        "previous": f"previous (v{found.previous})",
        "heuristic": "heuristic",
    }
    values: dict[str, BySlice] = {
        title: {OVERALL: {n: interval(v) for n, v in found.metrics[model][OVERALL].items()}}
        for model, title in titles.items()
        if model in found.metrics
    }
    values["at promotion"] = found.promoted.get("champion", {})
    heading = f"span {found.span}, {found.rows.total:,} rows"
    metrics = metrics_table(heading, values, overall(next(iter(values.values()))), {})
    drift = table("drift (the largest)", "against", "value", "limit")
    for one in farthest(found.moved)[:_DRIFTS]:
        drift.add_row(escape(one.column), one.against, f"{one.value:.3f}", f"{one.limit:g}")
    for lines in filter(lambda lines: lines.row_count, (metrics, drift)):
        console.print()
        console.print(lines)
    action, followed = record.decision.action, history.followed(model, record.id)
    title = f"[bold {_STYLES[action]}]{TITLES[action].lower()}[/]"
    console.print(f"\nVersion {found.champion} on span {found.span}: {title}")
    for reason in record.decision.reasons:
        console.print(f"  {escape(reason.text)} [dim]({reason.leads_to.replace('_', ' ')})[/]")
    if followed:
        console.print(f"  {followed.time}: {escape(followed.what)}")


def tell_all(records: Sequence[Record], model: str, console: Console) -> None:
    """Prints a row for each evaluation, oldest first."""
    metric = metrics_to_show(records)[0]
    lines = table("span", "rows", "version", metric, "worst drift", "decision")
    for column in lines.columns[3:]:
        column.justify, column.no_wrap, column.overflow = "left", False, "fold"
    for record in records:
        moved = next(iter(farthest(record.evidence.moved)), None)
        lines.add_row(
            span_name(record),
            f"{record.evidence.rows.total:,}",
            str(record.evidence.champion),
            interval(judged(record.evidence).get(OVERALL, {}).get(metric)),
            Text(f"{moved.column} {moved.value:.3f} / {moved.limit:g}" if moved else "-"),
            _decision(record, history.followed(model, record.id)),
        )
    console.print(lines, soft_wrap=False)


def _decision(record: Record, followed: Followed | None) -> Text:
    """The decision and its first reason, shortened; below them what came of it."""
    action, reasons = record.decision.action, record.decision.reasons
    text = Text.assemble((TITLES[action].lower(), _STYLES[action]))
    if reasons:
        more = f" (+{len(reasons) - 1})" if len(reasons) > 1 else ""
        text.append(f": {textwrap.shorten(reasons[0].text, _REASON, placeholder=' …')}{more}")
    if followed is not None or action != "keep":
        text.append(f"\n-> {outcome(record, followed)}")
    return text


def tell_last(
    model: str, config_name: str, config: Config, workspace: Workspace, console: Console
) -> None:
    """Writes the page, and prints where it is and what to type next."""
    from components.continued_evaluation import page
    from pipeline.page.writing import write_index

    records = history.read_all(model)
    followed = {r.id: f for r in records if (f := history.followed(model, r.id))}
    path = workspace.reports / f"{config.registry.model}-evaluations.html"
    page.write_page(records, followed, config.registry.model, path)
    write_index(workspace)
    console.print(f"\n{shown(history.path_of(model, records[-1].id))} (all that was found)")
    console.print(f"{shown(path)} (every evaluation so far, drawn)\n")
    tell_next(console, _commands(records[-1], followed, model, config_name))


def _commands(
    newest: Record, followed: Mapping[str, Followed], model: str, config_name: str
) -> dict[str, str]:
    """What to type next, after the newest decision."""
    action, came = newest.decision.action, followed.get(newest.id)
    commands = {make("evaluations", config_name): "the history"}
    if came is None and action == "roll_back":
        purpose = f"bring version {newest.evidence.previous} back"
        commands[make("rollback", config_name)] = purpose
    if came is None and action == "retrain":
        commands[make("run-local", config_name)] = "train a successor"
    candidate = store.read_labels(model).get(store.CANDIDATE)
    if came and came.version is not None and came.version == candidate:
        commands[make("promote", config_name, f"VERSION={candidate}")] = "make it the champion"
    commands[f"python3 -m pipeline evaluations --json -c {config_name}"] = "all, for programs"
    commands[make("versions", config_name)] = "all versions and their labels"
    return commands
