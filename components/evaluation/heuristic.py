"""The Heuristic Benchmark (book pattern 28): a rule that a model has to beat.

A rule is a condition on raw columns, as `pandas.DataFrame.eval` reads it, or 'mined' for the best
division of one of the model's columns. Either way it divides rows into buckets, the last of them
for rows with a missing value, and predicts the mean of the training rows in each.
"""

import ast
import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from components.errors import PipelineStop, did_you_mean
from components.features.table import FeatureTable
from components.settings import Strict

if TYPE_CHECKING:
    import pandas as pd

MINED = "mined"
FILE = "heuristic.json"
_QUOTED = re.compile("`([^`]*)`")
_EXAMPLE = "\"payment_type == 'Cash'\""
_SAMPLES: dict[str, Any] = {"BYTES": "", "INT": 0, "FLOAT": np.float32(0)}
_BATCH = 16_384
_MINED = 32_768
"""A mined rule is chosen on so many rows, of all files alike: the first have old spans' rows only.
Its predictions are learned from all."""
_MOST_BUCKETS = 32
_CLIP = 1e-7

Rows = tuple["pd.DataFrame", np.ndarray]
"""Raw columns, and the targets float32 [N, D] (one-hot for multiclass, else D is 1)."""


class Buckets(Strict):
    """A division of rows; the last bucket is for those with a missing value.

    Attributes:
      columns: What it looks at; of a condition all columns, else one.
      condition: Bucket 0 where it does not hold, 1 where it does.
      values: Texts, each with a bucket of its own, after bucket 0 for all others.
      boundaries: Increasing numbers, each the start of a bucket.
    """

    columns: tuple[str, ...]
    condition: str = ""
    values: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    def names(self) -> list[str]:
        """What each bucket holds, in words."""
        if self.condition:
            return ["does not hold", "holds", "missing"]
        if self.values:
            return ["other", *(f"{value!r}" for value in self.values), "missing"]
        starts = [f"{start:g}" for start in self.boundaries]
        between = [f"{low} to {high}" for low, high in itertools.pairwise(starts)]
        return [f"below {starts[0]}", *between, f"from {starts[-1]}", "missing"]

    def of(self, rows: "pd.DataFrame") -> np.ndarray:
        """The bucket int64 [N] of each row."""
        there = rows[list(self.columns)].notna().all(axis=1).to_numpy()
        known = rows.loc[there, list(self.columns)].infer_objects()
        ids: np.ndarray = np.full(len(rows), len(self.names()) - 1, np.int64)
        if self.condition:
            ids[there] = _holds(self.condition, known)
        elif self.values:
            numbers = {value: number for number, value in enumerate(self.values, 1)}
            ids[there] = known[self.columns[0]].map(numbers).fillna(0)
        else:
            numbers_of_rows = known[self.columns[0]].astype(np.float64)
            ids[there] = np.searchsorted(self.boundaries, numbers_of_rows, "right")
        return ids


class Heuristic(Strict):
    """Buckets; what is predicted [D] in each, and from how many training rows it was learned."""

    buckets: Buckets
    predictions: list[list[float]]
    rows: list[int]

    def predict(self, rows: "pd.DataFrame") -> np.ndarray:
        """The predictions float32 [N, D]."""
        return np.array(self.predictions, np.float32)[self.buckets.of(rows)]

    def describe(self) -> dict[str, Any]:
        """The rule as JSON: its columns, and each bucket's content, rows and prediction."""
        parts = zip(self.buckets.names(), self.rows, self.predictions, strict=True)
        buckets = [{"holds": name, "rows": n, "prediction": p} for name, n, p in parts]
        return {"column": ", ".join(self.buckets.columns), "buckets": buckets}

    def write(self, folder: str) -> None:
        """Writes `heuristic.json` into a folder, which is made if it isn't there."""
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, FILE), "w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=1))


def read(folder: str) -> Heuristic:
    """What `Heuristic.write` wrote."""
    with open(os.path.join(folder, FILE), encoding="utf-8") as file:
        return Heuristic.model_validate_json(file.read())


def heuristic_problems(
    rule: str, table: FeatureTable, schema_columns: Mapping[str, str]
) -> Iterator[str]:
    """Yields what is wrong with a rule, a sentence each.

    Args:
        rule: The setting.
        table: The feature table.
        schema_columns: The schema's columns, each with its type: BYTES, INT or FLOAT.
    """
    if rule == MINED:
        return
    try:
        columns = _parsed(rule)[1]
    except (SyntaxError, ValueError):
        yield (
            f"'{rule}' is not a rule: write a condition on columns, such as {_EXAMPLE}, or "
            f"'{MINED}'; a column whose name is no plain word stands between backticks (`)"
        )
        return
    problems = [
        problem
        for column in columns.values()
        for problem in _column_problems(column, table, schema_columns)
    ]
    yield from problems or _type_problems(rule, schema_columns)


def _parsed(rule: str) -> tuple[str, dict[str, str]]:
    """The rule with a plain word for each column, and the columns by these words.

    Raises:
        SyntaxError: It is no expression.
        ValueError: There is no column in it, or what Python cannot read.
    """
    quoted = {f"quoted_column_{n}": name for n, name in enumerate(_QUOTED.findall(rule))}
    words = iter(quoted)
    text = _QUOTED.sub(lambda _: next(words), rule).strip()
    nodes = ast.walk(ast.parse(text, mode="eval"))
    names = sorted({node.id for node in nodes if isinstance(node, ast.Name)})
    if not names:
        raise ValueError("there is no column in it")
    return text, {name: quoted.get(name, name) for name in names}


def _column_problems(
    column: str, table: FeatureTable, schema_columns: Mapping[str, str]
) -> Iterator[str]:
    if column not in schema_columns:
        hint = did_you_mean(column, schema_columns) or f": {', '.join(schema_columns)}"
        yield f"the rule's column '{column}' is not in the schema{hint}. (A text needs quotes.)"
    elif column == table.label.column:
        yield f"the rule's column '{column}' is the label"
    elif table.exclude.get(column) == "leakage":
        yield f"the rule's column '{column}' is excluded as leakage: it knows the label"


def _type_problems(rule: str, schema_columns: Mapping[str, str]) -> Iterator[str]:
    """A number is compared with a text, or the whole is no condition."""
    import pandas as pd

    text, columns = _parsed(rule)
    compared = [
        (columns[node.left.id], constant.value)
        for node in ast.walk(ast.parse(text, mode="eval"))
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name)
        for constant in node.comparators
        if isinstance(constant, ast.Constant)
    ]
    for column, value in compared:
        kind = schema_columns[column]
        if isinstance(value, str) != (kind == "BYTES"):
            wanted = "a quoted text" if kind == "BYTES" else "a number"
            yield f"the rule's column '{column}' is {kind}, so {value!r} must be {wanted}"
            return
    sample = {name: [_SAMPLES[schema_columns[name]]] for name in columns.values()}
    try:
        _holds(rule, pd.DataFrame(sample))
    except Exception as error:  # pandas raises whatever its operators do
        yield f"the rule '{rule}' cannot be computed: {' '.join(str(error).split())[:200]}"


def _holds(rule: str, rows: "pd.DataFrame") -> np.ndarray:
    """Where a condition holds, bool [N]; no value is missing.

    Raises:
        Exception: pandas cannot compute it, or it is no condition.
    """
    text, columns = _parsed(rule)
    named = rows[list(columns.values())].set_axis(list(columns), axis=1)
    held = named.eval(text, engine="python")
    if str(getattr(held, "dtype", "")) != "bool":
        raise ValueError("it is neither true nor false for a row")
    return held.to_numpy()


def learn(
    rule: str, table: FeatureTable, kinds: Mapping[str, str], split_folders: list[str]
) -> Heuristic:
    """Learns the predictions of a rule, or mines one, from the TFRecords of the training split.

    Args:
        rule: A condition or 'mined', already checked by `heuristic_problems`.
        table: The feature table.
        kinds: The columns' kinds in the schema.
        split_folders: Where the training rows are.
    """
    files = sorted(f for folder in split_folders for f in glob.glob(os.path.join(folder, "*")))
    if rule == MINED:
        import pandas as pd

        batches = read_rows(files, table, kinds, table.raw_columns(), -(-_MINED // len(files)))
        rows, targets = zip(*batches, strict=True)
        buckets = mine(table.problem, pd.concat(rows), np.concatenate(targets))
    else:
        buckets = Buckets(columns=tuple(sorted({*_parsed(rule)[1].values()})), condition=rule)
    read = read_rows(files, table, kinds, list(buckets.columns))
    parts = ((buckets.of(columns), targets) for columns, targets in read)
    predictions, counts = _means(len(buckets.names()), parts)
    return Heuristic(buckets=buckets, predictions=predictions.tolist(), rows=counts.tolist())


def read_rows(
    files: list[str],
    table: FeatureTable,
    kinds: Mapping[str, str],
    columns: list[str],
    each: int = -1,
) -> Iterator[Rows]:
    """Yields the columns batch by batch; rows without a known label are left out.

    Of each file the first so many rows are read, or, if it is -1, all.
    """
    import tensorflow as tf

    from components.evaluation.arrays import frame
    from components.ingest.examples import decoded, lists_of

    label = table.label.column
    read = lists_of({name: kinds[name] for name in {*columns, label}})
    compression = "GZIP" if files and files[0].endswith(".gz") else ""
    records = tf.data.Dataset.from_tensor_slices(tf.constant(files, tf.string)).flat_map(
        lambda file: tf.data.TFRecordDataset(file, compression).take(each)
    )
    for examples in records.batch(_BATCH).prefetch(1):
        rows = frame([decoded(examples, read)], [*columns, label])
        labels = _known_labels(rows[label], table)
        yield rows.loc[labels.index, columns], _targets(labels.to_numpy(), table)


def _known_labels(column: "pd.Series", table: FeatureTable) -> "pd.Series":
    """The labels as numbers, the classes as theirs; without those that are missing or none."""
    there = column.dropna().infer_objects()
    if table.label.classes is None or table.problem == "multilabel":
        return there
    kind = {"O": "BYTES", "i": "INT"}.get(there.dtype.kind, "FLOAT")
    return there.map({name: n for n, name in enumerate(table.label.values(kind))}).dropna()


def _targets(labels: np.ndarray, table: FeatureTable) -> np.ndarray:
    if table.problem == "multilabel":
        classes, separator = table.label.values("BYTES"), table.label.separator
        named = [{part.strip() for part in str(text).split(separator)} for text in labels]
        return np.array([[name in row for name in classes] for row in named], np.float32)
    if table.problem == "multiclass":
        return np.eye(table.num_classes(), dtype=np.float32)[labels.astype(np.int64)]
    return labels.astype(np.float32)[:, None]


def mine(problem: str, rows: "pd.DataFrame", targets: np.ndarray) -> Buckets:
    """The buckets, of one column, that learned on every other row predict the remaining best.

    Raises:
        PipelineStop: No column has two different values.
    """
    learning = np.arange(len(targets)) % 2 == 0
    losses = {}
    for name in rows:
        if (buckets := _candidate(name, rows[name])) is None:
            continue
        ids = buckets.of(rows)
        means, _ = _means(len(buckets.names()), [(ids[learning], targets[learning])])
        losses[buckets] = _loss(problem, targets[~learning], means[ids[~learning]])
    if not losses:
        raise PipelineStop(
            "No column has two different values to mine a heuristic from. Look at the data, or set "
            "evaluation.heuristic to a rule."
        )
    return min(losses, key=losses.__getitem__)


def _candidate(column: str, values: "pd.Series") -> Buckets | None:
    """The most frequent texts, or a number's values if they are few, or its quantiles."""
    there = values.dropna().infer_objects()
    counts = there.value_counts().sort_index(kind="stable")
    if len(counts) == 0 or (len(counts) == 1 and len(there) == len(values)):
        return None
    if there.dtype == object:
        frequent = counts.sort_values(ascending=False, kind="stable").index[:_MOST_BUCKETS]
        return Buckets(columns=(column,), values=tuple(frequent))
    starts = counts.index
    if len(counts) > _MOST_BUCKETS:
        starts = np.unique(there.quantile(np.linspace(0, 1, _MOST_BUCKETS + 1)[1:-1]))
    return Buckets(columns=(column,), boundaries=tuple(map(float, starts)))


def _loss(problem: str, targets: np.ndarray, predictions: np.ndarray) -> float:
    if problem == "regression":
        return float(((targets - predictions) ** 2).mean())
    clipped = np.clip(predictions, _CLIP, 1 - _CLIP)
    log_loss = -(targets * np.log(clipped))
    if problem != "multiclass":
        log_loss -= (1 - targets) * np.log(1 - clipped)
    return float(log_loss.sum(axis=1).mean())


def _means(
    count: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """The mean target of each bucket, with one row of the overall mean added to each; and rows."""
    rows, sums = np.zeros(count), np.zeros((count, 1))
    for ids, targets in parts:
        rows = rows + np.bincount(ids, minlength=count)
        columns = [np.bincount(ids, weights=column, minlength=count) for column in targets.T]
        sums = sums + np.stack(columns, axis=1)
    overall = sums.sum(axis=0) / max(rows.sum(), 1)
    predictions = (sums + overall) / (rows[:, None] + 1)
    return predictions.astype(np.float32), rows.astype(np.int64)
