"""Where to cut a split by time: quantiles of the time column, in bounded memory."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from components.ingest.settings import Split
from components.ingest.splitting import Cuts

Counts = dict[Any, int]
"""How many rows have each time, or, in a summary, lie at or before it and after the one before."""
_LIMIT = 1 << 18


class CountTimes(beam.CombineFn):
    """Merges counts of times; exact up to 262,144 different ones, then to about 1 in 30,000."""

    def create_accumulator(self) -> Counts:
        """No rows."""
        return {}

    def add_input(self, counts: Counts, more: Counts) -> Counts:
        """Adds the counts of one batch."""
        for time, count in more.items():
            counts[time] = counts.get(time, 0) + count
        return _summary(counts) if len(counts) > _LIMIT else counts

    def merge_accumulators(self, parts: Iterable[Counts]) -> Counts:
        """The counts of all parts."""
        merged: Counts = {}
        for part in parts:
            merged = self.add_input(merged, part)
        return merged

    def extract_output(self, counts: Counts) -> Counts:
        """The counts."""
        return counts


def find_cuts(counts: Counts, split: Split) -> Cuts | None:
    """The last time of train and of eval, so that each has its fraction of the rows.

    Equal times stay together, so the fractions are met as closely as the data allows. None if
    there are no times.
    """
    total, seen = sum(counts.values()), 0
    wanted = [split.train * total, (split.train + split.eval) * total]
    cuts: list[Any] = []
    for time in sorted(counts):
        seen += counts[time]
        while len(cuts) < len(wanted) and seen >= wanted[len(cuts)] - 1e-9 * total:
            cuts.append(time)
    return (cuts[0], cuts[1]) if counts else None


def _summary(counts: Counts) -> Counts:
    """Neighbours taken together, under the later time, until at most half of `_LIMIT` are left."""
    weight = 4 * sum(counts.values()) / _LIMIT
    summary: Counts = {}
    pending = 0
    for time in sorted(counts):
        pending += counts[time]
        if pending >= weight:
            summary[time], pending = pending, 0
    if pending:
        summary[time] = pending
    return summary
