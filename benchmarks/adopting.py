"""`make bench-adopt`: tables of other packages, from `adopt` to version 1.

For each, how long it takes, and the model beside linear or logistic regression (scikit-learn's,
with standardised numbers and one-hot categories) on the same columns, train rows and test rows.
About five minutes. A missed target is no error: the exit code tells only whether everything ran.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, roc_auc_score, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks import processes
from benchmarks.adopting_tables import Table, write_tables
from components.registry import store
from pipeline import loading
from pipeline.adopt import reading
from pipeline.config import Config
from pipeline.console import RunLines, output_to, shown, table
from pipeline.workspace import Workspace

_METRICS = {"binary": "auc", "multiclass": "categorical_accuracy", "regression": "rmse"}
_MOST_SECONDS = 300
_COLUMNS = ("table", "metric", "train", "test", "linear", "this", "rule", "adopt", "run", "in all")


class Found(NamedTuple):
    """What came of a table."""

    table: str
    metric: str
    rows: tuple[int, int]
    """Of the train and the test split."""
    linear: float
    ours: float
    rule: float
    adopt: float
    """Seconds."""
    run: float

    @property
    def is_as_good(self) -> bool:
        """Whether the model is at least as good as the linear one."""
        return self.ours <= self.linear if self.metric == "rmse" else self.ours >= self.linear


def main() -> int:
    """Measures and tells; the exit code comes back."""
    workspace = Workspace(loading.PROJECT / "workspace")
    log = workspace.logs / "benchmark-adopt.log"
    log.unlink(missing_ok=True)
    with output_to(log) as console, tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        console.width = 125
        folder = Path(scratch)
        (folder / "configs").mkdir()
        os.environ["PIPELINE_CONFIGS"] = str(folder / "configs")
        console.print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
        try:
            with RunLines(console) as lines:
                found = []
                for one in write_tables(folder / "data"):
                    with lines.step(f"{one.name:<16}"):
                        found.append(_measure(one, folder))
        except processes.ChildFailed as failure:
            console.print(f"\n[red]{failure}[/] What it printed is in {shown(log)}.")
            return 1
        _tell(found, console)
        path = workspace.reports / "benchmark-adopt.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([one._asdict() for one in found], indent=1))
        console.print(f"\nAll figures: {shown(path)}")
    return 0


def _measure(one: Table, folder: Path) -> Found:
    adopt = processes.run(["-m", "pipeline", "adopt", *one.options], loading.PROJECT)
    options = ["--config", one.name, "--set", f"workspace={folder / 'workspace'}"]
    run = processes.run(["-m", "pipeline", "run", *options], loading.PROJECT)
    config = loading.load(one.name, configs=folder / "configs")
    metric = _METRICS[config.features.problem]
    model = str(folder / "workspace" / "registry" / one.name)
    if 1 not in store.list_versions(model):
        raise processes.ChildFailed(f"{one.name}: no version was filed.")
    metrics = store.read_manifest(model, 1)["metrics"]
    linear, rows = _linear(reading.find(one.data).files, config)
    ours, rule = (metrics[which]["overall"][metric] for which in ("candidate", "heuristic"))
    return Found(one.name, metric, rows, linear, ours, rule, adopt.wall, run.wall)


def _linear(files: list[str], config: Config) -> tuple[float, tuple[int, int]]:
    """What a linear model reaches on the test rows, and how many rows there were."""
    from components.ingest.tables import read_table  # TensorFlow, which talks as it starts
    from pipeline import schema
    from pipeline.adopt import profiling, splits

    types = schema.column_types(schema.read_schema(loading.PROJECT / config.schema_file))
    rows = profiling.as_in_schema(read_table(files, config.data.csv, 10**6), types)
    split = splits.assigned(rows, config.data.split)
    numbers = _columns(config, "numeric")
    categories = _columns(config, "vocabulary", "hashed") - numbers
    everything = rows.to_pandas().astype(dict.fromkeys(categories, str))
    train, test = (everything[split == number] for number in (0, 2))
    prepared = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), sorted(numbers)),
            ("categories", OneHotEncoder(handle_unknown="ignore"), sorted(categories)),
        ]
    )
    is_regression = config.features.problem == "regression"
    linear = RidgeCV(np.logspace(-3, 3, 13)) if is_regression else LogisticRegression(max_iter=3000)
    label = config.features.label.column
    model = make_pipeline(prepared, linear).fit(train, train[label])
    return _score(config, model, test, test[label]), (len(train), len(test))


def _columns(config: Config, *kinds: str) -> set[str]:
    features = config.features.columns.items()
    return {config.features.column_of(name) for name, found in features if found.kind in kinds}


def _score(config: Config, model: Any, rows: Any, labels: Any) -> float:
    if config.features.problem == "regression":
        return float(root_mean_squared_error(labels, model.predict(rows)))
    if config.features.problem == "multiclass":
        return float(accuracy_score(labels, model.predict(rows)))
    positive = (config.features.label.classes or [0, 1])[1]
    scores = model.predict_proba(rows)[:, [*model.classes_].index(positive)]
    return float(roc_auc_score(labels == positive, scores))


def _tell(found: list[Found], console: Console) -> None:
    made = table(*_COLUMNS)
    for one in found:
        better = "bold" if one.is_as_good else "yellow"
        made.add_row(
            *(one.table, one.metric, f"{one.rows[0]:,}", f"{one.rows[1]:,}"),
            *(f"{one.linear:.4f}", f"[{better}]{one.ours:.4f}[/]", f"{one.rule:.4f}"),
            *(f"{seconds:.0f} s" for seconds in (one.adopt, one.run, one.adopt + one.run)),
        )
    console.print(made)
    slowest = max(one.adopt + one.run for one in found)
    good = sum(one.is_as_good for one in found)
    console.print(f"\nAt least as good as linear: {good} of {len(found)}. rmse: less is better.")
    console.print(f"From adopt to version 1: at most {slowest:.0f} s (target {_MOST_SECONDS} s).")


if __name__ == "__main__":
    raise SystemExit(main())
