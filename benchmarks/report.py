"""The tables of `make bench`, and its targets."""

from typing import NamedTuple

from rich.console import Console

from benchmarks.comparison import Comparison
from benchmarks.ingest import Measured
from pipeline.console import table

_COMPONENTS = [
    ("ExampleGen", "CsvExampleGen", "ExampleGen"),
    ("StatisticsGen", "StatisticsGen", "StatisticsGen"),
    ("schema", "ImportSchemaGen", "CuratedSchema"),
    ("ExampleValidator", "ExampleValidator", "ExampleValidator"),
    ("gate", "", "Gate"),
    ("Transform", "Transform", "Transform"),
    ("Trainer", "Trainer", "Trainer"),
    ("baseline", "latest_blessed_model_resolver", "BaselineLookup"),
    ("Evaluator", "Evaluator", "Evaluator"),
    ("push", "Pusher", "RegistryPush"),
]
"""What it is called here, in the template, and in ours."""
_MODELS = {
    "template": "template, its 3 features",
    "template_all": "template, its 12 features",
    "ours": "ours, as many examples",
    "configured": "ours, as configured",
    "boosting": "gradient boosting",
    "rule": "rule: paid by credit card",
}
_WHOLE_RUN = {15_002: 0.60, 150_020: 0.35}
_NOTES = """\
Components: from registering an execution to its end. "between, exit": the rest of the whole run.
Training examples/s: the template's from the start of fit to its validation, ours from opening the
transformed rows to the last step, evaluations within. Tracing the graph lies within both.
Quality: on our test split. The template's own split differs: it has trained on two thirds of those
rows, which can only flatter it. The other models have not seen them."""


class Target(NamedTuple):
    """What was wanted, and what came."""

    what: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is within the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def targets(found: Comparison) -> list[Target]:
    """The targets for one number of rows."""
    runs, auc = found.runs, {name: values["auc"] for name, values in found.quality.items()}
    wanted = [
        Target(
            "cached run beyond imports, s", runs["cached"].wall - runs["cached"].until_marker, 3.0
        ),
        Target("AUC over the template's", auc["ours"] - auc["template_all"], 0.0, True),
        Target("AUC below gradient boosting's", auc["boosting"] - auc["configured"], 0.005),
    ]
    if found.rows in _WHOLE_RUN:
        ratio = runs["ours"].wall / runs["template"].wall
        wanted.insert(0, Target("whole run / template's", ratio, _WHOLE_RUN[found.rows]))
    return wanted


def ingest_targets(found: list[Measured]) -> list[Target]:
    """The target for the ingest alone, if there is one to compare with."""
    if len(found) < 2:
        return []
    return [Target("ingest, times CsvExampleGen", found[1].seconds / found[0].seconds, 12.0, True)]


def tell_ingest(rows: int, found: list[Measured], console: Console) -> None:
    """Prints the speed and memory of the ingest alone."""
    lines = table(f"\n{rows:,} rows, ingest alone", "s", "rows/s", "MiB above start-up")
    for run in found:
        speed = f"{rows / run.seconds:,.0f}"
        lines.add_row(run.name, f"{run.seconds:.2f}", speed, f"{run.above_start / 2**20:,.0f}")
    console.print(lines)


def tell(found: Comparison, console: Console) -> None:
    """Prints the tables for one number of rows."""
    console.print(_times(found))
    console.print(_quality(found))
    cached = found.runs["cached"]
    console.print(
        f"\nOur second run, all cached: {cached.wall:.1f} s, {cached.until_marker:.1f} s of it "
        f"until everything is imported, {cached.wall - cached.until_marker:.1f} s beyond."
    )


def tell_targets(wanted: list[Target], console: Console) -> None:
    """Prints limits, values and marks, and how to read the figures."""
    lines = table("\ntarget", "limit", "value", "")
    for target in wanted:
        limit = f"{'>=' if target.at_least else '<='} {target.limit:g}"
        mark = "[green]met[/]" if target.met else "[red]missed[/]"
        lines.add_row(target.what, limit, f"{target.value:.3f}", mark)
    console.print(lines)
    console.print(f"\n{_NOTES}", style="dim")


def _times(found: Comparison) -> object:
    runs = [found.runs[name] for name in ("template", "template_all", "ours")]
    lines = table(
        f"\n{found.rows:,} rows, s", "template", "all features", "ours", "ratio", "to all"
    )

    def row(title: str, *values: float | None) -> None:
        ours = values[-1]
        ratios = [ours / v if ours is not None and v else None for v in values[:-1]]
        lines.add_row(title, *(_number(value) for value in (*values, *ratios)))

    row("imports, graph", *(run.start for run in runs))
    for title, theirs, our in _COMPONENTS:
        names = (theirs, theirs, our)
        row(title, *(run.components.get(name) for run, name in zip(runs, names, strict=True)))
    spent = [run.start + sum(run.components.values()) for run in runs]
    row("between, exit", *(run.wall - s for run, s in zip(runs, spent, strict=True)))
    lines.add_section()
    row("whole run", *(run.wall for run in runs))
    row("processor time", *(run.processor for run in runs))
    return lines


def _quality(found: Comparison) -> object:
    lines = table("\nmodel", "AUC", "log loss", "examples seen", "s", "examples/s")
    for name, title in _MODELS.items():
        values, model = found.quality[name], found.models.get(name)
        training = (
            (
                f"{model.examples:,}",
                f"{model.seconds:.1f}",
                f"{model.examples / model.seconds:,.0f}",
            )
            if model
            else ("", "", "")
        )
        lines.add_row(title, f"{values['auc']:.4f}", f"{values['log_loss']:.4f}", *training)
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
