"""Six fields, checked as the server's parser checks them, and when they fire."""

from datetime import UTC, datetime

import pytest

from components.errors import PipelineStop
from pipeline.kubeflow.submit import cron

NOW = datetime(2026, 11, 23, 9, 29, 39, tzinfo=UTC)  # a Monday


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("0 30 4 * * *", ["11-24 04:30:00", "11-25 04:30:00", "11-26 04:30:00"]),
        ("*/20 * * * * *", ["11-23 09:29:40", "11-23 09:30:00", "11-23 09:30:20"]),
        ("0 */30 * * * *", ["11-23 09:30:00", "11-23 10:00:00", "11-23 10:30:00"]),
        ("0 0 0 ? * SUN", ["11-29 00:00:00", "12-06 00:00:00", "12-13 00:00:00"]),
        ("0 0 6 * * Mon-Wed", ["11-24 06:00:00", "11-25 06:00:00", "11-30 06:00:00"]),
        ("0 0 12 1 jan,MAR *", ["01-01 12:00:00", "03-01 12:00:00", "01-01 12:00:00"]),
        ("0 0 20/2 * * *", ["11-23 20:00:00", "11-23 22:00:00", "11-24 20:00:00"]),
        ("5 10-40/15 9 * * *", ["11-23 09:40:05", "11-24 09:10:05", "11-24 09:25:05"]),
        # Both days given: either will do. One of them *, even with a step: both must fit.
        ("0 0 0 25 * 5", ["11-25 00:00:00", "11-27 00:00:00", "12-04 00:00:00"]),
        ("0 0 0 */2 * 5", ["11-27 00:00:00", "12-11 00:00:00", "12-25 00:00:00"]),
        ("0 0 0 29 2 *", 3 * ["02-29 00:00:00"]),
    ],
)
def test_fires_at(text: str, times: list[str]) -> None:
    found = cron.read(text).next_times(NOW, 3)
    assert [f"{time:%m-%d %H:%M:%S}" for time in found] == times


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("*/30 * * * *", r"has 5 fields, and needs six.*write '0 \*/30 \* \* \* \*'"),
        ("@daily", r"has 1 fields, and needs six.*e.g. '0 30 4 \* \* \*'"),
        ("", "has 0 fields"),
        ("0 0 0 * * * 2026", "has 7 fields"),
        ("60 0 0 * * *", r"seconds '60': it may be 0 to 59"),
        (
            "0 61 24 0 13 7",
            "minutes '61'.*hours '24'.*month '0'.*1 to 12 or jan to dec.*'7'.*0 to 6 or",
        ),
        ("0 0 0 * * mon-xyz", "day of the week 'mon-xyz': it may be 0 to 6 or sun to sat"),
        ("0 0 5-3 * * *", "hours '5-3': 5 is above 3"),
        ("0 0/0 * * * *", "minutes '0/0': a step is at least 1"),
        ("0 0 0 L * *", "day of the month 'L': it may be 1 to 31"),
        ("0 0 0 * * 2#1", "day of the week '2#1': neither"),
        ("0 1,,2 0 * * *", "minutes '': neither"),
        ("0 -5 0 * * *", "minutes '-5': neither"),
        ("0 *-5 0 * * *", r"minutes '\*-5': a range can't begin with \*"),
        ("0 0 0 30 2 *", "never fires"),
    ],
)
def test_does_not_pass(text: str, problem: str) -> None:
    with pytest.raises(PipelineStop, match=problem):
        cron.read(text)
