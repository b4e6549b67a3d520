import pytest

from benchmarks.ingest import arrow_example_gen, measure, write_rows

MIB = 2**20


@pytest.mark.prove
def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for rows in (50_000, 300_000):
        folder = tmp_path / str(rows)
        write_rows(folder / "data" / "rows.csv", rows)
        measured = measure("ArrowExampleGen", arrow_example_gen, str(folder))
        assert sum(measured.rows.values()) == rows
        peaks.append(measured.above_start)
    assert peaks[1] < 300 * MIB
    assert peaks[1] - peaks[0] < 50 * MIB  # The file is 34 MB larger, its examples 170 MB.
