"""The page of a model's evaluations: one HTML file that needs no network and no server."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from components.continued_evaluation.evidence import OVERALL, Evidence
from components.continued_evaluation.history import Followed, Record
from components.files import TEMPORARY
from pipeline.continued_evaluation import charts, metric_charts
from pipeline.continued_evaluation.wording import (
    AGAINST,
    MEANINGS,
    TITLES,
    judged,
    limit_in_words,
    limits_of,
    metrics_to_show,
    outcome,
    span_name,
    worst,
)
from pipeline.versions.model import day_and_minute

Charts = dict[str, list[dict[str, Any]]]
"""Plotly figures by the id of their element: one, or one for each slice."""


def write_page(
    records: Sequence[Record], followed: Mapping[str, Followed], title: str, path: Path
) -> Path:
    """Writes the page, whole or not at all, and returns its path.

    Args:
      records: All evaluations, oldest first; at least one.
      followed: What came of their decisions, by the evaluations' ids.
      title: The model's name.
      path: The HTML file; its folder is made if it isn't there.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(
        title=title,
        **_head(records),
        **_chart_section(records),
        metrics=_metrics(records),
        rows=[_row(record, followed.get(record.id), records) for record in reversed(records)],
        plotly_js=get_plotlyjs(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path


def _head(records: Sequence[Record]) -> dict[str, Any]:
    newest = records[-1]
    spans = sorted((record.evidence.span, span_name(record)) for record in records)
    return {
        "number": len(records),
        "first_span": spans[0][1],
        "last_span": spans[-1][1],
        "champion": newest.evidence.champion,
        "meaning": MEANINGS[newest.decision.action],
    }


def _metrics(records: Sequence[Record]) -> dict[str, str]:
    """The metrics that are drawn, each with the limits that the newest evaluation judged by."""
    limits = limits_of(records[-1])
    return {
        metric: "; ".join(limit_in_words(limit) for limit in limits if limit.metric == metric)
        for metric in metrics_to_show(records)
    }


def _chart_section(records: Sequence[Record]) -> dict[str, Any]:
    """The figures, and what the template says around them."""
    slices = metric_charts.slices_of(records)
    figures: Charts = {"decisions": [charts.decisions(records).to_plotly_json()]}
    for number, metric in enumerate(metrics_to_show(records)):
        made = [metric_charts.metric_chart(records, metric, place) for place in slices]
        figures[f"metric-{number}"] = [figure.to_plotly_json() for figure in made]
    drifts = {f"drift-{name}": charts.drift(records, name) for name in AGAINST}
    figures |= {name: [f.to_plotly_json()] for name, f in drifts.items() if f is not None}
    return {
        "charts": figures,
        "slices": slices,
        "lines": [metric_charts.LINES[name] for name in reversed(metric_charts.models_of(records))],
        "drifts": [(f"drift-{n}", text) for n, text in AGAINST.items() if f"drift-{n}" in figures],
        "most_columns": charts.MOST_COLUMNS,
    }


def _row(record: Record, followed: Followed | None, records: Sequence[Record]) -> dict[str, Any]:
    """What the table says about an evaluation."""
    evidence = record.evidence
    values = judged(evidence).get(OVERALL, {})
    return {
        "record": record,
        "span": span_name(record),
        "time": day_and_minute(record.time),
        "decision": TITLES[record.decision.action],
        "values": {name: values.get(name) for name in metrics_to_show(records)},
        "reasons": [reason.text for reason in record.decision.reasons],
        "outcome": outcome(record, followed),
        "facts": list(_facts(evidence)),
    }


def _facts(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """What else is known, for whoever wants to know more."""
    if evidence.age.spans is not None:
        yield "champion's age in spans", str(evidence.age.spans)
    yield "champion's age in days", f"{evidence.age.days:.0f}"
    yield "repeated rows", f"{evidence.rows.repeated:.1%}"
    yield "rows of earlier spans", f"{evidence.rows.seen_before:.1%}"
    if moved := worst(evidence.moved):
        share = f"{moved.value:.3f}, limit {moved.limit:g}"
        yield "moved farthest", f"{moved.column}, {AGAINST[moved.against]}: {share}"
    if (answers := evidence.answers) is not None:
        yield "logged predictions answered otherwise now", f"{answers.different:.2%}"
    if (joined := evidence.joined) is not None:
        for name, count in joined.model_dump(exclude_defaults=True).items():
            yield f"{name.replace('_', ' ')} (late labels)", f"{count:,}"
