"""The prediction log: what a file holds, and that nothing that happens to it stops a prediction."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.inference.columns import Columns, from_rows
from components.inference.prediction_log import (
    FULL,
    QUEUE_ROWS,
    UNFIT,
    UNWRITTEN,
    LogSettings,
    Predicted,
    PredictionLog,
    write_named,
)

_SIGNATURE = {
    "inputs": {
        "fare": {"type": "FLOAT", "required": False},
        "hour": {"type": "INT", "required": False},
        "shop": {"type": "BYTES", "required": False},
    },
    "ignored": [],
}
_NOON = 1_700_049_600_000_000  # 2023-11-15


def columns(rows: int) -> Columns:
    numbers = range(rows)
    return from_rows(_SIGNATURE, [{"fare": n / 2, "hour": n, "shop": f"s{n}"} for n in numbers])


def predictions(rows: int) -> np.ndarray:
    return np.arange(rows, dtype=np.float32)[:, None]


def logged(folder: Path) -> list[dict[str, Any]]:
    return [row for f in sorted(folder.rglob("*.parquet")) for row in pq.read_table(f).to_pylist()]


def settings(**others: Any) -> LogSettings:
    return LogSettings(enabled=True, **others)


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_file_has_its_columns_typed_and_null_where_missing(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings(exclude=["fare"]))
    given = from_rows(_SIGNATURE, [{"fare": 1.5, "hour": 7, "shop": "Ä"}, {"hour": None}])
    given["shop"] = np.array(["Ä".encode(), b"\xff!"], object)  # tensors may hold what is no text
    before = time.time()
    log.add(3, ["a", 2**62], given, np.array([[0.25], [0.5]], np.float32))
    log.close()
    (file,) = tmp_path.glob("taxi/*/*.parquet")
    schema = pq.read_schema(file)
    features = pa.struct({"hour": pa.int64(), "shop": pa.string()})
    types = [pa.string(), pa.int64(), pa.timestamp("us", "UTC"), pa.list_(pa.float32()), features]
    assert [(field.name, field.type) for field in schema] == [
        *zip(["key", "version", "time", "prediction", "features"], types, strict=True)
    ]
    first, second = logged(tmp_path)
    moment = first.pop("time")
    assert before - 1e-5 <= moment.timestamp() <= time.time()
    assert file.parent.name == f"{moment:%Y-%m-%d}"
    row = {"key": "a", "version": 3, "prediction": [0.25], "features": {"hour": 7, "shop": "Ä"}}
    assert first == row
    assert (second["key"], second["features"]) == (str(2**62), {"hour": None, "shop": "\ufffd!"})
    assert (log.written, log.dropped.total()) == (2, 0)


def test_many_threads_and_a_file_has_one_version(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings(seconds_per_file=0.1))
    wide = {"added": np.array([1.0, 2.0], np.float32)}

    def work(thread: int) -> None:
        for request in range(50):
            version = 1 + request % 2
            given = columns(2) | (wide if version == 2 else {})
            log.add(version, [f"{thread}-{request}-{n}" for n in (0, 1)], given, predictions(2))

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: log.written > 0)  # a file is closed by time before the end
    for thread in threads:
        thread.join()
    log.close()
    rows = logged(tmp_path)
    assert len(rows) == len({row["key"] for row in rows}) == log.written == 800
    assert {row["prediction"][0] for row in rows if row["key"].endswith("-1")} == {1.0}
    for file in tmp_path.rglob("*.parquet"):
        table = pq.read_table(file)
        (version,) = set(table["version"].to_pylist())
        names = [field.name for field in table.schema.field("features").type]
        assert ("added" in names) == (version == 2)


def test_an_excluded_column_that_does_not_exist_is_a_mistake():
    found = [*settings(exclude=["shop", "ship"]).problems(["shop", "fare"])]
    assert found == [(("exclude",), "the model reads no column 'ship'; no other is logged")]


def sample_of(folder: Path, keys: list[str], sample: float) -> list[dict[str, Any]]:
    log = PredictionLog(folder, "taxi", settings(sample=sample))
    log.add(1, keys, columns(len(keys)), predictions(len(keys)))
    log.close()
    assert not log.dropped
    return logged(folder)


def test_the_sample_is_of_the_same_keys_always_and_grows(tmp_path):
    keys = [f"s{n}" for n in range(2000)]
    rows = sample_of(tmp_path / "a", keys, 0.1)
    tenth = {row["key"] for row in rows}
    again = {row["key"] for row in sample_of(tmp_path / "b", keys[::-1], 0.1)}
    half = {row["key"] for row in sample_of(tmp_path / "c", keys, 0.5)}
    assert tenth == again < half
    assert 140 < len(tenth) < 260
    for row in rows:
        assert row["key"] == row["features"]["shop"] == f"s{row['prediction'][0]:.0f}"
    predicted = Predicted(1, _NOON, keys, columns(2000), predictions(2000))
    for _ in range(2):  # a file of this name replaces itself
        rows_written = write_named(tmp_path / "d", "taxi", "x", predicted, settings(sample=0.1))
        assert rows_written == len(tenth)
    (file,) = (tmp_path / "d").rglob("*.parquet")
    assert file.relative_to(tmp_path / "d") == Path("taxi/2023-11-15/x.parquet")
    assert {row["key"] for row in logged(tmp_path / "d")} == tenth


_PROCESS = """
import itertools, resource, signal, sys, time
from pathlib import Path
import numpy as np
from components.inference.prediction_log import LogSettings, PredictionLog
settings = LogSettings(enabled=True, seconds_per_file=0.01)
log = PredictionLog(Path(sys.argv[1]), "taxi", settings)
many = {"fare": np.random.default_rng(1).random(2000, np.float32)}
found = many["fare"][:, None]
"""
_FULL_DISK = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log.add(1, None, many, found)
log.close()
print(log.written, dict(log.dropped))
"""
_FOREVER = """
for number in itertools.count():
    log.add(1, [f"{number}-{row}" for row in range(2000)], many, found)
    print(log.written, flush=True)
    time.sleep(0.002)  # or the thread that writes gets no time
"""


def process(script: str, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _PROCESS + script, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.prove
def test_files_are_whole_when_they_appear_also_if_the_disk_is_full_or_the_process_killed(tmp_path):
    assert process(_FULL_DISK, tmp_path).communicate()[0] == "0 {'file_unwritten': 2000}\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    chance, seen, written = random.Random(1), {}, 0
    for _ in range(4):
        busy = process(_FOREVER, tmp_path)
        try:
            assert busy.stdout is not None
            own = next(int(line) for line in busy.stdout if int(line) > 0)
            deadline = time.monotonic() + chance.random() / 2
            while time.monotonic() < deadline:
                own = int(busy.stdout.readline())
        finally:
            busy.kill()
            busy.communicate()
        for file in {*tmp_path.rglob("*.parquet")} - {*seen}:
            seen[file] = len(pq.read_table(file))
        written += own
        assert sum(seen.values()) >= written


def test_what_killed_processes_left_is_swept_when_it_is_old(tmp_path):
    day = tmp_path / "taxi" / "2024-02-29"
    day.mkdir(parents=True)
    old, fresh = day / ".tmp-old", day / ".tmp-fresh"
    for path in (old, fresh):
        path.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    PredictionLog(tmp_path, "taxi", settings()).close()
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_row_that_cannot_be_written_costs_itself_only(tmp_path, caplog):
    log = PredictionLog(tmp_path, "taxi", settings())
    for number in range(40):
        log.add(1, [f"key {number}"], columns(1), predictions(1))
    log.add(1, ["good", "\ud800", "fine"], columns(3), predictions(3))
    log.close()
    keys = {row["key"] for row in logged(tmp_path)}
    assert keys == {*(f"key {number}" for number in range(40)), "good", "fine"}
    assert (log.written, log.dropped) == (42, {UNFIT: 1})
    assert "surrogates not allowed" in caplog.text


def test_a_full_queue_and_a_closed_log_drop_and_count_and_stop_nobody(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings())
    many = QUEUE_ROWS + 1
    log.add(1, None, {"x": np.zeros(many, np.float32)}, predictions(many))
    log.add(1, None, columns(10), predictions(10))
    log.close()
    log.add(1, None, columns(2), predictions(2))
    assert (log.written, log.dropped) == (10, {FULL: many + 2})
    assert {row["key"] for row in logged(tmp_path)} == {None}


def test_a_folder_that_cannot_be_written_is_told_once_and_counted(tmp_path, caplog):
    (tmp_path / "taxi").write_text("in the way")
    log = PredictionLog(tmp_path, "taxi", settings(seconds_per_file=0.01))
    for rows in (2, 3):
        log.add(1, None, columns(rows), predictions(rows))
        until(lambda rows=rows: log.dropped[UNWRITTEN] == (2 if rows == 2 else 5))
    (record,) = caplog.records
    assert "taxi: predictions are not logged" in record.message
    (tmp_path / "taxi").unlink()
    log.add(1, None, columns(4), predictions(4))
    log.close()
    assert (log.written, len(logged(tmp_path))) == (4, 4)
