"""Rows joined as of their time, one truth in both stores, and what cannot be used."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import PipelineStop
from components.feature_store.store import Service, join_files

FEATURES = {"lat", "long", "status", "wind", "pressure"}
Config = Callable[..., Any]


def known(measurements: pd.DataFrame, storm: str, asked: pd.Timestamp) -> list[Any]:
    """What was known of a storm at a time, found row by row."""
    of_it = measurements[(measurements.storm == storm) & (measurements.measured <= asked)]
    return [*of_it.sort_values("measured")[[*sorted(FEATURES)]].tail(1).itertuples(index=False)]


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    return table.to_pylist()


def test_each_row_has_what_was_known_at_its_time(
    config: Config, example: Path, measurements: pd.DataFrame
) -> None:
    asked = pq.read_table(example / "rows" / "questions.parquet")
    joined = pq.read_table(join_files(config(), example / "rows") / "questions.parquet")
    assert joined.select(asked.column_names).equals(asked)
    types = {"lat": pa.float32(), "long": pa.float32(), "status": pa.string()}
    types |= {"wind": pa.int64(), "pressure": pa.int64()}
    assert {name: joined.schema.field(name).type for name in FEATURES} == types
    # By another way than Feast's, for all rows, and for some of them row by row.
    left = joined.to_pandas().assign(time=pd.to_datetime(asked["asked"].to_pandas(), utc=True))
    left = left.assign(number=range(len(left))).sort_values("time")
    right = measurements.sort_values("measured")
    found = pd.merge_asof(
        left, right, by="storm", left_on="time", right_on="measured", suffixes=("", "_known")
    ).sort_values("number")
    assert len(found) > 10_000
    assert (found["measured"] <= found["time"]).all()
    for name in FEATURES:
        expected = found[f"{name}_known"].astype(found[name].dtype)
        assert (found[name] == expected).all(), name
    for row in found.iloc[::500].itertuples():
        [expected] = known(measurements, row.storm, row.time)
        assert row.wind == expected.wind and row.pressure == expected.pressure


def test_no_row_sees_its_future(
    config: Config, example: Path, tmp_path: Path, measurements: pd.DataFrame
) -> None:
    """What is measured later, even at the next hour, changes later rows alone."""
    before = join_files(config(), example / "rows") / "questions.parquet"
    first, cut = rows_of(pq.read_table(before)), pd.Timestamp("2005-08-28 12:00", tz="UTC")
    shutil.copytree(example / "repo", tmp_path / "repo")
    later = measurements.assign(
        wind=measurements["wind"].mask(measurements["measured"] > cut, 999).astype("int64")
    )
    later.to_parquet(tmp_path / "repo" / "data" / "measurements.parquet", index=False)
    after = join_files(config(repo=str(tmp_path / "repo")), example / "rows") / "questions.parquet"
    changed = 0
    for old, new in zip(first, rows_of(pq.read_table(after)), strict=True):
        # A row is asked three hours after the measurement that it knows.
        is_later = pd.Timestamp(old["asked"], tz="UTC") - pd.Timedelta(hours=3) > cut
        assert new == ({**old, "wind": 999} if is_later else old)
        changed += is_later
    assert 1000 < changed < len(first) - 1000


def test_early_double_and_unknown_rows_stay_where_they_are(service: Service) -> None:
    katrina, asked = "Katrina 2005", ["2005-08-28 18:00", "1999-01-01", "2005-08-28 17:59:59"]
    times = pd.to_datetime([*asked, asked[0], asked[0]], utc=True, format="ISO8601")
    storms = [katrina, katrina, katrina, katrina, "Nobody 2005"]
    found = service.as_of(pd.DataFrame({"storm": storms, "event_timestamp": times}))
    assert found["wind"].to_pylist() == [150, None, 145, 150, None]
    assert found["status"].to_pylist()[1] is None


def test_both_stores_say_the_same_of_the_same_time(
    service: Service, measurements: pd.DataFrame
) -> None:
    storms = sorted({*measurements["storm"]})
    last = measurements["measured"].max()
    online = service.latest([{"storm": storm} for storm in storms])
    offline = service.as_of(pd.DataFrame({"storm": storms, "event_timestamp": last}))
    assert len(storms) > 500
    assert online == offline.to_pylist()


def test_what_is_joined_to_the_same_is_left_alone(config: Config, tmp_path: Path) -> None:
    rows, columns = tmp_path / "rows", {"storm": ["Katrina 2005"], "asked": ["2005-08-28 18:00"]}
    for span in (1, 2):
        (rows / f"day {span}").mkdir(parents=True)
        pq.write_table(pa.table(columns), rows / f"day {span}" / "rows.parquet")
    (rows / "other.txt").write_text("not of the pattern")
    settings = config("day {SPAN}/*.parquet")
    to = join_files(settings, rows)
    before = (to / "day 1" / "rows.parquet").stat().st_mtime_ns
    (rows / "day 2" / "rows.parquet").unlink()
    assert join_files(settings, rows) == to
    assert [*to.glob("**/*.*")] == [to / "day 1" / "rows.parquet"]
    assert (to / "day 1" / "rows.parquet").stat().st_mtime_ns == before


def test_what_is_not_there_is_one_clear_sentence(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PipelineStop, match=r"'storm_then'.* did you mean 'storm_now'\?"):
        Service(config(service="storm_then"))
    with pytest.raises(PipelineStop, match=r"has no feature_store\.yaml\. Name the folder"):
        Service(config(repo=str(tmp_path)))
    (tmp_path / "feature_store.yaml").write_text("project: 3\nregistry: {path: nowhere.db}\n")
    with pytest.raises(PipelineStop, match=r"cannot be read|does not have. It has: none"):
        Service(config(repo=str(tmp_path)))
    monkeypatch.setitem(sys.modules, "feast", None)
    with pytest.raises(PipelineStop, match="group feature-store"):
        Service(config())


STORM, ASKED = {"storm": ["Katrina 2005"]}, {"asked": ["2005-08-28 18:00"]}


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({**ASKED}, "has no column 'storm'"),
        ({**STORM}, "has no column 'asked'"),
        ({**STORM, **ASKED, "wind": [1]}, "has a column 'wind', and so has"),
        ({**STORM, "asked": ["yesterday"]}, "cannot be joined with features: .*yesterday"),
        ({**STORM, "asked": pa.nulls(1, pa.string())}, ".*: 1 rows have no storm or no asked"),
    ],
)
def test_rows_that_cannot_be_joined(
    config: Config, tmp_path: Path, columns: dict[str, Any], told: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(PipelineStop, match=rf"rows\.parquet {told}"):
        join_files(config(), tmp_path)
    assert not [*(tmp_path / "workspace").glob("**/*.parquet")]


def test_rows_of_another_format(config: Config, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("storm,asked\n")
    with pytest.raises(PipelineStop, match="rows are Parquet"):
        join_files(config("*.csv"), tmp_path)
