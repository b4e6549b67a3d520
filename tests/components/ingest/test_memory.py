from functools import partial

import pytest

from benchmarks.ingest import arrow_example_gen, write_rows
from benchmarks.measuring import alone

MIB = 2**20


@pytest.mark.prove
def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for rows in (50_000, 300_000):
        folder = tmp_path / str(rows)
        write_rows(folder / "data" / "rows.csv", rows)
        measured = alone(partial(arrow_example_gen, folder))
        assert sum(measured.result.values()) == rows
        peaks.append(measured.above_start)
    assert peaks[1] < 300 * MIB
    assert peaks[1] - peaks[0] < 50 * MIB  # The file is 34 MB larger, its examples 170 MB.
