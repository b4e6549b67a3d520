"""A table as somebody might bring it: no name is a plain word, and few values are."""

import csv
import random
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tests import small
from tests.end_to_end.project import Project

PRICE, KIND, OVER, LABEL, KEY, YEAR, LEAK = (
    "net price",
    "a,b/c\\d",
    'it\'s "a" >= b',
    'the label\'s [b]"name"[/]?',
    "key",
    "2019",
    "leak | \u05d3\u05dc\u05e3",
)
NUMBERS = (
    *(PRICE, "net_price", "Net Price", "net.price", "net/price", "class", "self", "label"),
    *("__label__", "__prediction", "_hidden", "1st", "[red]a[/]{b}:", "a\nb", "n" * 300),
)
TEXTS = (
    *(KIND, OVER, "gr\u00f6\u00dfe", "gro\u0308\u00dfe", "\u05d0\u05d1", "\u05d1\u05d0"),
    *("\U0001f4b0", "import", " padded "),
)
"""Two pairs differ only in what a careless hash or a careless normalisation does not see."""
KINDS = ("a, b=1", 'c"d', "e\nf", "\u05de\u05d7\u05d9\u05e8")

CLASSES: dict[str, list[Any] | None] = {
    "binary": ["no", "yes"],
    "multiclass": ["a  b", "gr\u00fcn, blau", "\u274c", "never"],
    "regression": None,
}
_METRICS = {
    "binary": {"metric": "auc", "at_least": 0.9},
    "multiclass": {"metric": "categorical_accuracy", "at_least": 0.75},
    "regression": {"metric": "squared_correlation", "at_least": 0.75},
}


def features(problem: str) -> dict[str, Any]:
    """A feature table with every kind of feature, a cross, slices and an excluded column."""
    numeric = {name: {"kind": "numeric", "missing": "mean"} for name in NUMBERS}
    numeric["net.price"] = {"kind": "bucketized", "buckets": 4, "missing": "own", "embed": 2}
    texts: dict[str, Any] = {name: {"kind": "vocabulary", "missing": "own"} for name in TEXTS}
    texts["\U0001f4b0"] = {"kind": "hashed", "buckets": 8, "missing": "own", "embed": 2}
    return {
        "problem": problem,
        "label": {"column": LABEL, "classes": CLASSES[problem]},
        "key": KEY,
        "columns": {**numeric, **texts, "Class": {"column": KIND, **texts[KIND]}},
        "crosses": {"x / [y]": {"of": [KIND, "net.price"], "buckets": 16, "embed": 2}},
        "exclude": {LEAK: "leakage", YEAR: "time"},
        "slices": [[KIND], [OVER, KIND]],
    }


def settings(problem: str) -> dict[str, Any]:
    """The settings of a project `small` with that table; it arrives in spans."""
    return {
        **small.SETTINGS,
        "data": {
            "path": "data",
            "pattern": "span-{SPAN}/*.csv",
            "split": {"by": "key", "key": [KEY, YEAR], "train": 0.6, "eval": 0.2, "test": 0.2},
        },
        "features": features(problem),
        "training": {**small.SETTINGS["training"], "epochs": 12},
        "evaluation": {
            "heuristic": "`it's \"a\" >= b` == 'e\\nf'",
            "min_slice_size": 20,
            "thresholds": [
                _METRICS[problem],
                {**_METRICS[problem], "at_least": 0.0, "slices": [OVER, KIND]},
            ],
        },
        "continued_evaluation?": {
            "limits": [{**_METRICS[problem], "at_least": 0.1, "slices": [KIND]}],
            "retraining": {"start": False},
        },
    }


def schema(problem: str) -> schema_pb2.Schema:
    """The curated schema."""
    made = schema_pb2.Schema()
    for name in (*NUMBERS, LEAK):
        made.feature.add(name=name, type="FLOAT")
    for name in TEXTS:
        made.feature.add(name=name, type="BYTES")
    made.feature.add(name=YEAR, type="INT")
    for name, kind in ((KEY, "BYTES"), (LABEL, "BYTES" if CLASSES[problem] else "FLOAT")):
        made.feature.add(name=name, type=kind, presence={"min_fraction": 1.0})
    return made


def rows(problem: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows whose label depends on `PRICE` and `KIND` alone, among names that look like them."""
    chance = random.Random(seed)
    return [_row(problem, chance, f"{seed}-{number}") for number in range(count)]


def _row(problem: str, chance: random.Random, key: str) -> dict[str, Any]:
    row: dict[str, Any] = {name: round(chance.gauss(0, 1), 3) for name in NUMBERS}
    row |= {name: chance.choice((*KINDS, "")) for name in TEXTS}
    score = row[PRICE] + 2 * (row[KIND] == KINDS[0]) - 0.4 + chance.gauss(0, 0.2)
    classes = CLASSES[problem]
    if classes is None:
        label: Any = -1e6 * score
    else:
        label = classes[min(int(max(score + 1, 0)), max(1, len(classes) - 2))]
    row |= {"n" * 300: "", "class": 7}  # never there, and always the same
    return {**row, YEAR: 2019, LEAK: score, LABEL: label, KEY: key}


def write_rows(path: Path, table: list[dict[str, Any]]) -> None:
    """Writes CSV, quoted where it must be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def project(folder: Path, problem: str) -> Project:
    """A project with such a table and its first span."""
    made = Project(folder, settings(problem))
    text = text_format.MessageToString(schema(problem), as_utf8=True)
    (folder / "configs" / "small.schema.pbtxt").write_text(text, encoding="utf-8")
    write_rows(folder / "data" / "span-1" / "rows.csv", rows(problem, 1500, 1))
    return made
