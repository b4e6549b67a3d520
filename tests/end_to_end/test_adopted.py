"""A fork's first hour, by its own commands: clone, adopt a table, run it to version 1, predict."""

import csv
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn import datasets

from components.registry import store
from tests import clones

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

Row = dict[str, Any]


def diabetes() -> tuple[str, list[Row]]:
    """442 patients, ten numbers, and how far the disease went on."""
    found = datasets.load_diabetes(scaled=False)
    return "progression", _rows(found, "progression", [str(int(y)) for y in found.target])


def wine() -> tuple[str, list[Row]]:
    """178 wines of three growers, by thirteen measurements."""
    found = datasets.load_wine()
    names = ("Müller & Söhne", "Château d'Or", "Weingut 3")
    return "grower", _rows(found, "grower", [names[y] for y in found.target])


def _rows(found: Any, label: str, values: list[str]) -> list[Row]:
    table = zip(found.data, values, strict=True)
    return [
        {**dict(zip(found.feature_names, (f"{x:g}" for x in row), strict=True)), label: value}
        for row, value in table
    ]


def hostile() -> tuple[str, list[Row]]:
    """900 orders whose header has all that a spreadsheet can do to it."""
    chance = random.Random(5)

    def row(number: int) -> Row:
        price, town = (
            chance.lognormvariate(3, 1),
            chance.choice(["Køln", 'the "Hague"', "a, b", ""]),
        )
        bought = price * (2 if town == "Køln" else 1) + chance.gauss(0, 10) > 25
        return {
            "class": town,
            "net price (€)": f"{price:.2f}",
            "2nd.item": chance.choice(["yes", "no"]),
            'it\'s "quoted"': f"{chance.random():.3f}",
            "net_price____": str(chance.randrange(9)),
            "n°": f"order {number}",
            "when?": f"2026-03-{1 + number % 28:02d} 10:00:00",
            "self": chance.choice(["", "1", "2"]),
            "kjøpt?": "ja" if bought else "nei",
        }

    return "kjøpt?", [row(number) for number in range(900)]


def write(folder: Path, name: str, rows: list[Row], separator: str = ",") -> str:
    """A CSV file's path."""
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def typed(field: str) -> Any:
    """What stands in a field of CSV, as callers send it."""
    try:
        return json.loads(field or "null")
    except ValueError:
        return field


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return clones.make(tmp_path / "clone")


@pytest.mark.parametrize(
    ("made", "problem", "separator"),
    [(diabetes, "regression", ","), (wine, "multiclass", "\t"), (hostile, "binary", ";")],
)
def test_a_table_becomes_version_1(
    clone: Path,
    tmp_path: Path,
    made: Callable[[], tuple[str, list[Row]]],
    problem: str,
    separator: str,
) -> None:
    (label, rows), name = made(), made.__name__
    data = write(tmp_path, name, rows, separator)
    clones.pipeline(clone, "adopt", data, "--label", label, "--separator", separator)
    settings = yaml.safe_load((clone / "configs" / f"{name}.yaml").read_text("utf-8"))
    assert settings["features"]["problem"] == problem
    told = clones.pipeline(clone, "run", "--config", name)
    assert "filed as version 1" in told, told
    manifest = store.read_manifest(str(clone / "workspace" / "registry" / name), 1)
    assert manifest["signature"]["problem"] == problem
    row = {column: typed(value) for column, value in rows[7].items() if column != label}
    given = [json.dumps(row), "--config", name, "--version", "1"]
    [answer] = re.findall(r"^{.*", clones.pipeline(clone, "predict", *given), re.M)
    [values] = json.loads(answer)["predictions"]
    assert len(values) == (3 if problem == "multiclass" else 1)
    to = str(tmp_path / "predicted")
    told = clones.pipeline(
        clone,
        *("batch-predict", "--config", name, "--version", "1"),
        *("--input", data, "--output", to),
    )
    assert f"{len(rows)} rows predicted by {name}, version 1" in told


def test_the_first_table_names_the_project_and_others_stand_beside_it(
    clone: Path, tmp_path: Path
) -> None:
    for made in (diabetes, wine):
        label, rows = made()
        clones.pipeline(clone, "adopt", write(tmp_path, made.__name__, rows), "--label", label)
    readme, configs = (clone / "README.md").read_text("utf-8"), clone / "configs"
    assert readme.startswith("# Diabetes\n")
    assert "wine" not in readme
    shutil.rmtree(configs / "patterns", ignore_errors=True)
    for path in configs.glob("taxi.*"):
        path.unlink(missing_ok=True)
    listed = clones.pipeline(clone, "config", "--config", "automated")
    assert yaml.safe_load(listed)["features"]["label"]["column"] == "progression"
    assert "wine" in clones.pipeline(clone, "config", "--config", "wine")


def test_without_the_example_the_tests_still_pass(clone: Path) -> None:
    clones.adopt_and_delete_the_example(clone)
    some = ["tests/pipeline/test_loading.py"]
    tests = ["tests"] if os.environ.get("PARTS_FULL") else some
    options = ("-q", "-n0", "-p", "no:cacheprovider", "-m", "not prove", "-W", "ignore")
    clones.run(clone, sys.executable, "-m", "pytest", *options, *tests)
