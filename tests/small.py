"""A small data set and its settings: what tests of the machinery run on, instead of the taxi's."""

import os
import random
from pathlib import Path
from typing import Any

import yaml

COLUMNS = ("amount", "weight", "hour", "shop", "method", "leak", "when", "bought")

SETTINGS: dict[str, Any] = {
    "name": "small",
    "data": {
        "path": "data",
        "pattern": "*.csv",
        "split": {"by": "row", "train": 0.6, "eval": 0.2, "test": 0.2},
    },
    "schema_file": "configs/small.schema.pbtxt",
    "features": {
        "problem": "binary",
        "label": {"column": "bought"},
        "columns": {
            "amount": {"kind": "numeric", "missing": "mean"},
            "weight": {"kind": "numeric", "scale": "minmax", "missing": 0.5},
            "amount_range": {
                "column": "amount",
                "kind": "bucketized",
                "buckets": 4,
                "missing": "own",
            },
            "hour": {"kind": "bucketized", "boundaries": [6, 12, 18], "missing": "error"},
            "shop": {"kind": "hashed", "buckets": 8, "embed": 2, "missing": "own"},
            "method": {"kind": "vocabulary", "missing": "own"},
        },
        "crosses": {"method_by_range": {"of": ["method", "amount_range"], "buckets": 16}},
        "exclude": {"leak": "leakage", "when": "time"},
        "slices": [["method"]],
    },
    "model": {"hidden": [8], "dropout": 0.1},
    "training": {
        "seed": 3,
        "epochs": 6,
        "global_batch_size": 64,
        "learning_rate": {"initial": 0.02},
        "evaluate_every_steps": 10,
    },
    "evaluation": {
        "heuristic": "method == 'card'",
        "min_slice_size": 20,
        "thresholds": [{"metric": "auc", "at_least": 0.6, "over_heuristic": -0.1}],
    },
    "registry": {"model": "small", "promote": "automatic"},
}


def environment_of_a_copy() -> dict[str, str]:
    """For a process that runs in a copy of the project: its own code, and its own settings."""
    left_out = ("PYTHONPATH", "PIPELINE_CONFIGS")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows in which method, amount and hour decide the label, with some noise and some gaps."""
    chance = random.Random(seed)
    return [_row(chance, number) for number in range(count)]


def _row(chance: random.Random, number: int) -> dict[str, Any]:
    amount = round(chance.lognormvariate(2, 1), 2)
    method = chance.choices(["card", "cash", "cheque"], [5, 4, 1])[0]
    hour = chance.randrange(24)
    score = (method == "card") * 2 + (amount > 8) * 1.5 + (hour > 12) - 2.2
    bought = int(score + chance.gauss(0, 0.7) > 0)
    return {
        "amount": amount if chance.random() > 0.1 else "",
        "weight": round(chance.random(), 3),
        "hour": hour,
        "shop": f"shop {chance.randrange(30)}",
        "method": method if chance.random() > 0.05 else "",
        "leak": bought * 10 + chance.random(),
        "when": 1_600_000_000 + number * 60,
        "bought": bought,
    }


def write_csv(path: Path, table: list[dict[str, Any]]) -> None:
    """Writes rows with a header; no value needs quotes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(table[0])] + [",".join(str(v) for v in row.values()) for row in table]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_config(folder: Path, settings: dict[str, Any], name: str = "small") -> None:
    """Writes settings as `folder/<name>.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def schema_text() -> str:
    """The curated schema of the small data."""
    types = {"hour": "INT", "when": "INT", "bought": "INT", "shop": "BYTES", "method": "BYTES"}
    text = ""
    for name in COLUMNS:
        gaps = name in ("amount", "method")
        domain = ' domain: "method"' if name == "method" else ""
        if name == "hour":
            domain = " int_domain { min: 0 max: 23 }"
        text += (
            f'feature {{ name: "{name}" type: {types.get(name, "FLOAT")}{domain} '
            f"presence {{ min_fraction: {0.5 if gaps else 1.0} }} "
            "value_count { min: 1 max: 1 } }\n"
        )
    values = " ".join(f'value: "{v}"' for v in ("card", "cash", "cheque"))
    return text + f'string_domain {{ name: "method" {values} }}\n'
