import logging
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
from pydantic import ValidationError

from components.inference.columns import Columns, from_rows
from components.inference.prediction_log import LogSettings, Predicted, PredictionLog, write_named

_SIGNATURE = {
    "inputs": {
        "fare": {"type": "FLOAT", "required": False},
        "hour": {"type": "INT", "required": False},
        "shop": {"type": "BYTES", "required": False},
    },
    "ignored": [],
}
_TWO_HOURS = 7200
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


def test_rows_are_logged_with_their_columns_typed_and_null_where_missing(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings())
    given = from_rows(_SIGNATURE, [{"fare": 1.5, "hour": 7, "shop": "Ä"}, {"hour": None}])
    before = time.time()
    log.add(3, ["a", "b"], given, np.array([[0.25], [0.5]], np.float32))
    after = time.time()
    log.close()

    (file,) = tmp_path.glob("taxi/*/*.parquet")
    schema = pq.read_schema(file)
    assert schema.field("key").type == pa.string()
    assert schema.field("version").type == pa.int64()
    assert schema.field("time").type == pa.timestamp("us", "UTC")
    assert schema.field("prediction").type.value_type == pa.float32()
    found = {field.name: field.type for field in schema.field("features").type}
    assert found == {"fare": pa.float32(), "hour": pa.int64(), "shop": pa.string()}
    first, second = logged(tmp_path)
    moment = first.pop("time")
    assert before - 1e-5 <= moment.timestamp() <= after
    assert file.parent.name == f"{moment:%Y-%m-%d}"
    assert first == {
        "key": "a",
        "version": 3,
        "prediction": [0.25],
        "features": {"fare": 1.5, "hour": 7, "shop": "Ä"},
    }
    assert second["features"] == {"fare": None, "hour": None, "shop": None}
    assert (log.written, log.dropped) == (2, 0)


def test_it_is_off_unless_enabled(tmp_path):
    log = PredictionLog(tmp_path, "taxi", LogSettings())
    log.add(1, None, columns(1), predictions(1))
    log.close()
    assert (log.written, log.dropped, [*tmp_path.iterdir()]) == (0, 0, [])


def test_many_threads_several_versions_and_a_file_has_one_version(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings(rows_per_file=300, queue_rows=10**6))
    wide = {"added": np.array([1.0, 2.0], np.float32)}

    def work(thread: int) -> None:
        for request in range(50):
            keys = [f"{thread}-{request}-{row}" for row in range(2)]
            version = 1 + request % 2
            given = columns(2) | (wide if version == 2 else {})
            log.add(version, keys, given, predictions(2))

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()

    rows = logged(tmp_path)
    assert len(rows) == len({row["key"] for row in rows}) == log.written == 800
    assert {row["prediction"][0] for row in rows if row["key"].endswith("-1")} == {1.0}
    files = [pq.read_table(file) for file in tmp_path.rglob("*.parquet")]
    for table in files:
        (version,) = set(table["version"].to_pylist())
        names = [field.name for field in table.schema.field("features").type]
        assert ("added" in names) == (version == 2)


def test_integer_keys_are_their_decimal_text_and_no_keys_are_null(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings())
    log.add(1, [2**62, -7], columns(2), predictions(2))
    log.add(1, None, columns(1), predictions(1))
    log.close()
    assert [row["key"] for row in logged(tmp_path)] == [str(2**62), "-7", None]


def test_several_classes_keep_their_order(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings())
    log.add(1, None, columns(2), np.array([[0.5, 0.25, 0.25], [0, 1, 0]], np.float32))
    log.close()
    assert [row["prediction"] for row in logged(tmp_path)] == [[0.5, 0.25, 0.25], [0, 1, 0]]


def test_excluded_columns_are_left_out(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings(exclude=["shop", "fare"]))
    log.add(1, None, columns(1), predictions(1))
    log.close()
    assert [row["features"] for row in logged(tmp_path)] == [{"hour": 0}]


def test_all_columns_may_be_excluded(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings(exclude=[*_SIGNATURE["inputs"]]))
    log.add(1, ["a"], columns(1), predictions(1))
    log.close()
    assert [row["key"] for row in logged(tmp_path)] == ["a"]


def test_an_excluded_column_that_does_not_exist_is_a_mistake():
    found = [*settings(exclude=["shop", "ship"]).problems(["shop", "fare"])]
    assert found == [(("exclude",), "the model reads no column 'ship'; no other is logged")]


@pytest.mark.parametrize("sample", [0, 1.5, -1])
def test_the_sample_is_a_fraction(sample):
    with pytest.raises(ValidationError):
        settings(sample=sample)


def sample_of(folder: Path, keys: list[str | int] | None, sample: float, rows: int) -> list[Any]:
    log = PredictionLog(folder, "taxi", settings(sample=sample, queue_rows=10**6))
    log.add(1, keys, columns(rows), predictions(rows))
    log.close()
    assert log.dropped == 0
    return logged(folder)


def test_the_sample_is_of_the_same_keys_always_and_grows(tmp_path):
    keys = [f"key {n}" for n in range(2000)]
    tenth = {row["key"] for row in sample_of(tmp_path / "a", keys, 0.1, 2000)}
    again = {row["key"] for row in sample_of(tmp_path / "b", keys[::-1], 0.1, 2000)}
    half = {row["key"] for row in sample_of(tmp_path / "c", keys, 0.5, 2000)}
    assert tenth == again < half
    assert 140 < len(tenth) < 260
    assert sorted(tenth)[:2] == ["key 1", "key 1005"]  # as it was when this was written


def test_a_sampled_row_has_its_own_values(tmp_path):
    for row in sample_of(tmp_path, [f"s{n}" for n in range(500)], 0.2, 500):
        assert row["key"] == row["features"]["shop"] == f"s{row['prediction'][0]:.0f}"


def test_an_integer_key_is_sampled_as_its_text(tmp_path):
    texts = sample_of(tmp_path / "a", [str(n) for n in range(500)], 0.3, 500)
    numbers = sample_of(tmp_path / "b", [*range(500)], 0.3, 500)
    assert [row["key"] for row in texts] == [row["key"] for row in numbers]


def test_rows_without_keys_are_sampled_at_random(tmp_path):
    first, second = (sample_of(tmp_path / n, None, 0.1, 2000) for n in "ab")
    assert all(140 < len(rows) < 260 for rows in (first, second))
    assert [r["prediction"] for r in first] != [r["prediction"] for r in second]


def test_a_full_queue_drops_and_counts_and_does_not_stop_the_caller(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings(queue_rows=10))
    log.add(1, None, columns(11), predictions(11))
    log.add(1, None, columns(10), predictions(10))
    log.close()
    assert (log.written, log.dropped) == (10, 11)


def test_what_comes_after_the_end_is_dropped(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings())
    log.close()
    log.add(1, None, columns(2), predictions(2))
    assert (log.written, log.dropped) == (0, 2)


def test_a_folder_that_cannot_be_written_is_told_once_and_counted(tmp_path, caplog):
    (tmp_path / "taxi").write_text("in the way")
    log = PredictionLog(tmp_path, "taxi", settings(rows_per_file=1))
    with caplog.at_level(logging.WARNING):
        log.add(1, None, columns(2), predictions(2))
        until(lambda: log.dropped == 2)
        log.add(1, None, columns(3), predictions(3))
        until(lambda: log.dropped == 5)
    (record,) = caplog.records
    assert "taxi: predictions are not logged" in record.message

    (tmp_path / "taxi").unlink()
    log.add(1, None, columns(4), predictions(4))
    log.close()
    assert (log.written, log.dropped) == (4, 5)
    assert len(logged(tmp_path)) == 4


def test_a_disk_that_is_full_leaves_no_file(tmp_path):
    script = (
        "import resource, sys, pathlib, signal;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "from tests.components.inference.test_prediction_log import *;"
        "log = PredictionLog(pathlib.Path(sys.argv[1]), 'taxi', settings());"
        "log.add(1, None, columns(5000), predictions(5000)); log.close();"
        "print(log.written, log.dropped)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "0 5000\n", done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_is_closed_by_rows_before_the_end(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings(rows_per_file=3, seconds_per_file=1000))
    log.add(1, None, columns(2), predictions(2))
    log.add(1, None, columns(2), predictions(2))
    until(lambda: len(logged(tmp_path)) == 4)
    log.close()


def test_a_file_is_closed_by_time_before_the_end(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings(seconds_per_file=0.05))
    log.add(1, None, columns(2), predictions(2))
    until(lambda: len(logged(tmp_path)) == 2)
    log.close()


def test_bytes_that_are_no_text_are_logged_as_nearly_as_possible(tmp_path):
    log = PredictionLog(tmp_path, "taxi", settings())
    shops = np.array([b"\xff!", b"", b"good"], object)
    log.add(1, None, columns(3) | {"shop": shops}, predictions(3))
    log.close()
    assert [row["features"]["shop"] for row in logged(tmp_path)] == ["\ufffd!", None, "good"]


def test_a_named_file_replaces_itself_also_on_another_day(tmp_path):
    for slope in (1, 2):
        predicted = Predicted(4, _NOON, ["a", "b"], columns(2), slope * predictions(2))
        assert write_named(tmp_path, "taxi", "batch-1", predicted, settings()) == 2
    (file,) = tmp_path.rglob("*.parquet")
    assert file.relative_to(tmp_path) == Path("taxi/2023-11-15/batch-1.parquet")
    assert [row["prediction"] for row in logged(tmp_path)] == [[0.0], [2.0]]


def test_a_named_file_and_the_thread_have_the_same_columns_and_sample(tmp_path):
    keys = [f"key {n}" for n in range(300)]
    threaded = sample_of(tmp_path / "a", keys, 0.2, 300)
    predicted = Predicted(1, _NOON, keys, columns(300), predictions(300))
    rows = write_named(tmp_path / "b", "taxi", "x", predicted, settings(sample=0.2))
    named = logged(tmp_path / "b")
    assert rows == len(named)
    for row in (*threaded, *named):
        row.pop("time")
    assert named == threaded


_FOREVER = """
import itertools, pathlib, sys
from tests.components.inference.test_prediction_log import *
log = PredictionLog(
    pathlib.Path(sys.argv[1]), "taxi", settings(seconds_per_file=0.01, queue_rows=10**6)
)
given, found = columns(2000), predictions(2000)
for number in itertools.count():
    log.add(1, [f"{number}-{row}" for row in range(2000)], given, found)
    print(log.written, flush=True)
    time.sleep(0.002)  # or the thread that writes gets no time
"""


def test_files_are_whole_when_they_appear_also_if_the_process_is_killed(tmp_path):
    chance, seen, written = random.Random(1), {}, 0

    def look() -> None:
        for file in {*tmp_path.rglob("*.parquet")} - {*seen}:
            seen[file] = len(pq.read_table(file))

    for _ in range(4):
        command = [sys.executable, "-c", _FOREVER, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            own = next(int(line) for line in process.stdout if int(line) > 0)
            deadline = time.monotonic() + chance.random() / 2
            while time.monotonic() < deadline:
                own = int(process.stdout.readline())
                look()
        finally:
            process.kill()
            process.communicate()
        look()
        written += own
        assert sum(seen.values()) >= written


def test_what_killed_processes_left_is_swept_when_it_is_old(tmp_path):
    day = tmp_path / "taxi" / "2024-02-29"
    day.mkdir(parents=True)
    old, fresh = day / ".tmp-old", day / ".tmp-fresh"
    for path in (old, fresh):
        path.write_text("half")
    os.utime(old, (time.time() - _TWO_HOURS,) * 2)
    PredictionLog(tmp_path, "taxi", settings()).close()
    assert (old.exists(), fresh.exists()) == (False, True)
