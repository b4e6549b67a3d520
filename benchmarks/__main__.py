"""`make bench`: this pipeline beside TFX's own taxi template, on the same rows.

    python -m benchmarks                    # 15,002 and 150,020 rows; about five minutes
    python -m benchmarks --rows 1500000     # about a quarter of an hour
    python -m benchmarks --rows 10000000 --only-ours

Both train on as many examples as the template does. The template runs with the 3 of its features
that are on; the AUC is also shown with the 12 that it suggests, up to 150,020 rows. Its split is
another, and it has trained on about two thirds of our test rows, which can only flatter it. Prints
times and ratios, and writes them to workspace/reports/benchmark-runs.json.
"""

import argparse
from functools import partial
from pathlib import Path

from benchmarks import ingest, template
from benchmarks.measuring import CONFIG, Bench, Timed, alone, bench, run, run_ours
from pipeline import loading
from pipeline.workspace import Workspace

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
_RATIOS = {15_002: 0.60, 150_020: 0.35, 1_500_000: 0.10}
_QUALITY_UP_TO = 150_020


def main() -> None:
    """Measures and tells."""
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[15_002, 150_020])
    parser.add_argument("--only-ours", action="store_true", help="without the template")
    arguments = parser.parse_args()
    with bench("runs") as made:
        with made.step("reading all libraries once, untimed"):
            run(["-c", "from tfx import v1; from pipeline import cli, graph, local, run"])
        for rows in arguments.rows:
            folder = made.scratch / str(rows)
            ingest.write_rows(folder / "data" / "rows.csv", rows)
            _measure(made, rows, folder, arguments.only_ours)


def _measure(made: Bench, rows: int, folder: Path, only_ours: bool) -> None:
    data, workspace, title = folder / "data", folder / "workspace", f"{rows:>10,} rows: "
    runs: dict[str, Timed] = {}
    models: dict[str, Path] = {}
    if not only_ours:
        with made.step(f"{title}TFX's template"):
            runs["template"] = template.made_and_run(folder / "template", data)
            models["template, 3 features"] = template.model(folder / "template")
    with made.step(f"{title}ours, as many examples"):
        runs["ours"] = run_ours(workspace, data, *_same_examples(rows))
        models["ours, as many examples"] = _model(workspace)
    with made.step(f"{title}ours, the same again"):
        cached = run_ours(workspace, data, *_same_examples(rows))
    if rows <= _QUALITY_UP_TO and not only_ours:
        with made.step(f"{title}the template with all its features"):
            template.made_and_run(folder / "template_all", data, all_features=True)
            models["template, 12 features"] = template.model(folder / "template_all")
        with made.step(f"{title}ours, as configured"):
            run_ours(workspace, data)
            models["ours, as configured"] = _model(workspace)
        _tell_quality(made, rows, models, workspace)
    beyond = cached.wall - cached.until_marker
    made.figures[f"{rows}"] = runs | {"cached": cached}
    _tell_times(made, rows, runs)
    made.console.print(
        f"\nOur second run, all cached: {cached.wall:.1f} s, {beyond:.1f} s of it beyond imports."
    )
    made.target(f"{rows:,}: cached run beyond imports, s", beyond, 3.0)


def _same_examples(rows: int) -> list[str]:
    """Settings to train on as many examples as the template, in whole steps, to the end."""
    config = loading.load(CONFIG)
    train_rows, batch = round(rows * config.data.split.train), config.training.global_batch_size
    epochs, rest = divmod(template.EXAMPLES_SEEN, train_rows)
    steps = epochs * -(-train_rows // batch) + -(-rest // batch)
    return [f"training.steps={steps}", "training.epochs=null", "training.early_stopping=null"]


def _model(workspace: Path) -> Path:
    """The model trained last."""
    found = Workspace(workspace).pipeline_root.glob("*/Trainer/model/*")
    return max(found, key=lambda folder: int(folder.name)) / "Format-Serving"


def _tell_times(made: Bench, rows: int, runs: dict[str, Timed]) -> None:
    def row(title: str, *values: float | None) -> list[object]:
        their, our = values if len(values) == 2 else (None, values[0])
        return [title, their, our, our / their if our and their and their > 0.1 else None]

    timed = [*runs.values()]
    both = "template" in runs
    lines = [row("imports, graph", *(one.start for one in timed))]
    for title, theirs, our in _COMPONENTS:
        names = (theirs, our) if both else (our,)
        found = (o.components.get(n) for o, n in zip(timed, names, strict=True))
        lines.append(row(title, *found))
    lines.append(row("whole run", *(one.wall for one in timed)))
    lines.append(row("processor time", *(one.processor for one in timed)))
    made.tell(f"\n{rows:,} rows, s", "template", "ours", "ratio", rows=lines)
    if both and rows in _RATIOS:
        ratio = runs["ours"].wall / runs["template"].wall
        made.target(f"{rows:,}: whole run / template's", ratio, _RATIOS[rows])


def _tell_quality(made: Bench, rows: int, models: dict[str, Path], workspace: Path) -> None:
    (examples,) = Workspace(workspace).pipeline_root.glob("*/ExampleGen/examples/*")
    label = loading.load(CONFIG).features.label.column
    aucs = alone(partial(template.auc_of, models, examples / "Split-test", label)).result
    made.tell("\nAUC on our test split", "", rows=[[n, f"{a:.4f}"] for n, a in aucs.items()])
    made.figures[f"{rows}, AUC"] = aucs
    ahead = aucs["ours, as many examples"] - aucs["template, 12 features"]
    made.target(f"{rows:,}: AUC above the template's", ahead, 0.0, at_least=True)


if __name__ == "__main__":
    main()
