import os
from pathlib import Path

import pytest

from components.errors import PipelineStop
from components.ingest.settings import RollingSpans, SpanRange
from components.ingest.spans import resolve

CSV = "id,x,name\n1,2,a\n"


@pytest.fixture
def data(tmp_path, write):
    def make(*names: str) -> str:
        for name in names:
            write(name, CSV)
        return str(tmp_path / "data")

    return make


def found(base, pattern, spans="newest"):
    inputs = resolve(base, pattern, spans)
    return [path.removeprefix(base + "/") for path in inputs.files], inputs.spans, inputs.version


def test_without_a_placeholder_all_matching_files_are_span_0(data):
    base = data("a.csv", "b.csv.gz", "c.txt", "sub/d.csv")
    assert found(base, "*.csv*") == (["a.csv", "b.csv.gz"], [0], None)
    assert found(base, "*") == (["a.csv", "b.csv.gz", "c.txt"], [0], None)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ("newest", [10]),
        (2, [2]),
        (SpanRange(first=1, last=2), [1, 2]),
        (RollingSpans(count=1), [10]),
        (RollingSpans(count=3), [9, 10]),  # 8 to 10, clipped to what is there, as in TFX.
        (RollingSpans(count=2, skip=1), [9]),
        (RollingSpans(count=100), [1, 2, 9, 10]),
        (RollingSpans(count=100, start=2), [2, 9, 10]),
    ],
)
@pytest.mark.parametrize(
    ("pattern", "name"), [("s-{SPAN}/*.csv", "s-{}/x.csv"), ("s{SPAN:3}.csv", "s{:03}.csv")]
)
def test_spans_are_numbers_and_not_texts(data, spans, expected, pattern, name):
    base = data(*[name.format(span) for span in (1, 2, 9, 10)])
    assert found(base, pattern, spans)[:2] == (sorted(map(name.format, expected)), expected)


def test_each_span_is_read_in_its_newest_version(data):
    base = data("1/v1/a.csv", "1/v10/b.csv", "1/v9/c.csv", "2/v3/d.csv", "2/v3/e.csv")
    both = found(base, "{SPAN}/v{VERSION}/*", SpanRange(first=1, last=2))
    assert both == (["1/v10/b.csv", "2/v3/d.csv", "2/v3/e.csv"], [1, 2], 3)
    assert found(base, "{SPAN}/v{VERSION}/*", 1) == (["1/v10/b.csv"], [1], 10)


def test_dates_count_days_since_1970(data):
    base = data("1970-01-11.csv", "1970-01-12.csv", "1970-01-14.csv")
    pattern = "{YYYY}-{MM}-{DD}.csv"
    assert found(base, pattern) == (["1970-01-14.csv"], [13], None)
    rolling = found(base, pattern, RollingSpans(count=3))
    assert rolling == (["1970-01-12.csv", "1970-01-14.csv"], [11, 13], None)


@pytest.mark.parametrize(
    ("pattern", "spans", "parts"),
    [
        ("*.txt", "newest", ["No file in", "matches '*.txt'", "data.pattern"]),
        ("s-{SPAN}.csv", 3, ["asks for 3, but there is no 3 in", "There are: 1, 2, 4."]),
        ("s-{SPAN}.csv", SpanRange(first=2, last=9), ["asks for 2 to 9, but there is no 3, 5 in"]),
        (
            "s-{SPAN}.csv",
            SpanRange(first=0, last=10**12),
            ["0 to 1000000000000, but there is no 0, 3, 5"],
        ),
        ("s-{SPAN}.csv", SpanRange(first=4, last=1), ["but there is no such span in"]),
        ("s-{SPAN}.csv", RollingSpans(count=2, skip=9), ["there is no such span in"]),
        ("*.csv", 3, ["'*.csv' selects no spans", "{SPAN}", "newest"]),
        ("s-{VERSION}.csv", "newest", ["Version spec provided, but Span"]),
        ("{SPAN}-{SPAN}.csv", "newest", ["Only one {SPAN} is allowed"]),
        ("{YYYY}-{MM}.csv", "newest", ["Exactly one of each date spec"]),
        ("{SPAN}.csv", "newest", ["Cannot find span number"]),
    ],
)
def test_what_is_not_there_is_named(data, pattern, spans, parts):
    base = data("s-1.csv", "s-2.csv", "s-4.csv")
    with pytest.raises(PipelineStop) as stop:
        resolve(base, pattern, spans)
    for part in parts:
        assert part in str(stop.value)


def test_the_fingerprint_follows_name_size_and_time_of_change(data):
    base = data("a.csv", "b.csv")
    prints = [resolve(base, "*", "newest").fingerprint]
    for change in (
        lambda: os.utime(Path(base, "a.csv"), ns=(0, 1)),
        lambda: os.utime(Path(base, "a.csv"), ns=(0, 2)),
        lambda: Path(base, "a.csv").rename(Path(base, "c.csv")),
        lambda: Path(base, "c.csv").write_text(CSV + "\n"),
    ):
        change()
        prints.append(resolve(base, "*", "newest").fingerprint)
    assert len(set(prints)) == 5
    assert resolve(base, "*", "newest").fingerprint == prints[-1]
