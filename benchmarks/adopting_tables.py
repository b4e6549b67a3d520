"""Tables that installed packages ship, as CSV files for `adopt`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from sklearn import datasets

_TAXI = "package:tfx/examples/chicago_taxi_pipeline/data/big_tipper_label"
_PLOTLY = "package:plotly/package_data/datasets"


class Table(NamedTuple):
    """What is adopted."""

    name: str
    data: str
    label: str
    exclude: tuple[str, ...] = ()

    @property
    def options(self) -> list[str]:
        """Of `adopt`."""
        left_out = [word for column in self.exclude for word in ("--exclude", column)]
        return [self.data, "--label", self.label, "--name", self.name, *left_out]


def write_tables(folder: Path) -> list[Table]:
    """Writes the tables that are not files already.

    Returns:
      All tables: binary, several classes, numbers; 150 to 15,002 rows.
    """
    loaded: dict[str, Callable[..., Any]] = {
        "breast-cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "digits": datasets.load_digits,
        "iris": datasets.load_iris,
        "diabetes": datasets.load_diabetes,
    }
    folder.mkdir(parents=True)
    tables = [Table("taxi-tips", _TAXI, "big_tipper"), Table("taxi-fare", _TAXI, "fare", ("tips",))]
    for name, load in loaded.items():
        tables.append(_write(folder, name, load(as_frame=True).frame, "target"))
    features, values = datasets.make_friedman1(2000, noise=1.0, random_state=0)
    made = pd.DataFrame(features.round(4), columns=[f"x{number}" for number in range(10)])
    tables.append(_write(folder, "friedman", made.assign(y=values.round(4)), "y"))
    tables.append(Table("life", f"{_PLOTLY}/gapminder.csv.gz", "lifeExp"))
    tables.append(Table("tips", f"{_PLOTLY}/tips.csv.gz", "tip"))
    return tables


def _write(folder: Path, name: str, frame: pd.DataFrame, label: str) -> Table:
    path = folder / f"{name}.csv"
    frame.to_csv(path, index=False)
    return Table(name, str(path), label)
