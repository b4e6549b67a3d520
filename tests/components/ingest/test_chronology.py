import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest import splitting
from components.ingest.settings import Split
from components.ingest.splitting import CountTimes, find_cuts

SPLIT = Split(by="time", time="t", train=0.8, eval=0.1, test=0.1)


def combined(batches):
    combine = CountTimes()
    parts = [combine.add_input(combine.create_accumulator(), batch) for batch in batches]
    return combine.extract_output(combine.merge_accumulators(parts))


@pytest.mark.parametrize("times", [range(100), [f"{i:03}".encode() for i in range(100)]])
def test_the_newest_rows_are_test_and_those_before_eval(times):
    assert find_cuts(dict.fromkeys(times, 7), SPLIT) == (times[79], times[89])


def test_equal_times_stay_together():
    assert find_cuts({1: 50, 2: 45, 3: 5}, SPLIT) == (2, 2)
    assert find_cuts({1: 10}, SPLIT) == (1, 1)


def test_no_times_have_no_cuts():
    assert find_cuts({}, SPLIT) is None


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(1, 9))
def test_the_cuts_do_not_depend_on_files_or_order(times, size):
    shuffled = random.Random(1).sample(times, len(times))
    batches = [shuffled[i : i + size] for i in range(0, len(times), size)]
    counted = combined([{t: batch.count(t) for t in batch} for batch in batches])
    assert counted == {t: times.count(t) for t in times}


def test_many_different_times_are_summarised_closely():
    times = [*range(0, 1_000_000, 2)]
    random.Random(2).shuffle(times)
    counts = combined([dict.fromkeys(times[i : i + 99_999], 1) for i in range(0, 500_000, 99_999)])
    assert len(counts) <= splitting._LIMIT
    assert sum(counts.values()) == 500_000
    train, until_eval = find_cuts(counts, SPLIT)
    assert abs(train - 800_000) < 100
    assert abs(until_eval - 900_000) < 100
