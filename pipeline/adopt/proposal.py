"""What `adopt` proposes: what becomes of each column, how rows are divided, what is reached."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import PipelineStop
from pipeline.adopt import judging
from pipeline.adopt.judging import Target
from pipeline.adopt.part import Request
from pipeline.adopt.table import FEW_ROWS, Column, profile, remarks, sample

Settings = dict[str, Any]

_ONE_HOT = 32
"""Categories with more values are embedded."""
_THING = "(user|customer|client|member|household|patient|subject|item|product|movie|order|store)"
_ID = re.compile(rf"(^|[_\W]|{_THING})(id|uuid|guid|key|index|number|nr|no|unnamed: 0)$", re.I)
_CODE = re.compile(
    rf"(^|[_\W]|{_THING})(id|key|code|zip|zipcode|postcode|area|tract|region|district|type|class|"
    r"category|group|cluster|segment|month|weekday|day|dayofweek|hour|status|state|kind|flag)s?$",
    re.I,
)


@dataclass(frozen=True)
class Decision:
    """What becomes of one column."""

    column: Column
    why: str
    excluded: str | None = None
    """The reason in one word, as in `features.exclude`; None if it feeds features."""
    features: tuple[tuple[str, Settings], ...] = ()
    """Settings of its features, each with what its name has behind the column's."""
    explains: float = 0.0
    """The share of the label's variance that it explains alone."""


@dataclass(frozen=True)
class Proposal:
    """What the configuration is written from, and what is told."""

    label: Column
    target: Target
    decisions: list[Decision]
    """Of every column but the label, in the table's order."""
    rows: int
    """That were read and have a label."""
    split: Settings
    """As in `data.split`."""
    key: str | None
    """A column that is different in each row."""
    limits: dict[str, float]
    """By how much each metric may be worse than the heuristic's, and the champion's."""
    row: dict[str, Any]
    """The features' columns of one row, those with a value."""
    remarks: list[str]
    """What is odd in the columns, a sentence each."""


def propose(table: pa.Table, request: Request) -> Proposal:
    """Decides everything about a table in the schema's types, of which every row has a label.

    Raises:
      PipelineStop: the label fits no problem, or no column is left to learn from.
    """
    columns = profile(table)
    odd = [remark for column in columns.values() for remark in remarks(column, request)]
    label, values = columns.pop(request.label), table[request.label]
    try:
        target = judging.target(label, values, request.problem)
    except PipelineStop as stop:
        raise PipelineStop("\n  ".join([str(stop), *remarks(label, request)])) from stop
    decisions = _decisions(table, columns, target, request)
    used = [d.column.name for d in decisions if d.features]
    if not used:
        lines = "\n".join(f"  {d.column.name}: {d.excluded}, {d.why}" for d in decisions[:20])
        raise PipelineStop(
            f"No column is left to learn from:\n{lines}\nTake some in with --keep COLUMN, or bring "
            "more columns."
        )
    split, key = _split(table, decisions, request)
    deviation = pc.stddev(values).as_py() if target.problem == "regression" else 0.0
    limits = judging.margins(label, target.problem, len(table) * split["test"], deviation)
    [row] = table.select(used)[:1].to_pylist()
    row = {name: value for name, value in row.items() if value is not None}
    return Proposal(label, target, decisions, len(table), split, key, limits, row, odd)


def _decisions(
    table: pa.Table, columns: dict[str, Column], target: Target, request: Request
) -> list[Decision]:
    outputs = len(target.classes) if target.problem == "multiclass" else 1
    rows = sample(table, min(50_000, 20_000_000 // (outputs * len(columns)))).to_pandas()
    label, problem = rows.pop(request.label), target.problem
    if problem == "multilabel":  # judged by the class that is the most even
        has = {name: label.str.contains(name, regex=False) for name in target.classes}
        label, problem = min(has.values(), key=lambda h: abs(h.mean() - 0.5)).astype(int), "binary"
    elif target.classes:
        label = label.map({value: index for index, value in enumerate(target.classes)})
    out = {name: found for name, c in columns.items() if (found := exclusion(c, request))}
    rows = rows[[name for name in columns if name not in out]]
    scores = judging.scores(rows, label, problem)
    free, first = rows.drop(columns=[*request.keep], errors="ignore"), dict[int, str]()
    for name in free:
        values = hash(pd.util.hash_pandas_object(free[name], index=False).to_numpy().tobytes())
        if (same := first.setdefault(values, name)) != name:
            out[name] = Decision(columns[name], f"the same values as '{same}'", "duplicate")
    for name, why in judging.leaks(free, label, problem, scores).items():
        out[name] = Decision(columns[name], why, "leakage")
    return [out.get(name) or use(c, scores.explains[name], request) for name, c in columns.items()]


def exclusion(c: Column, request: Request) -> Decision | None:
    """The decision to leave a column out whatever the label; None if there is no reason to."""
    parts, is_int = _parts(c, request), c.is_unique and c.kind == "INT"
    share = f"different in {c.distinct / max(1, c.present):.0%} of the rows"
    always = f"always {c.frequent[0][0]!r:.40}" if c.frequent else ""
    counts = c.distinct == c.present and (c.rises or c.high - c.low < 1.5 * c.rows)
    length = f"{c.words:.0f} words, {c.characters:.0f} characters"
    rules = [
        ("choice", "left out with --exclude", c.name in request.exclude),
        ("time", "the rows are divided by it (--time)", c.name == request.time and not parts),
        ("id", "named with --key", c.name == request.key),
    ]
    if c.name not in request.keep:
        rules += [
            ("sparse", f"{c.present:,} of {c.rows:,} rows have a value", c.present <= c.rows / 100),
            ("constant", always, c.distinct == 1 and not c.missing),
            ("time", "no month, weekday or hour of it differs", bool(c.dates) and not parts),
        ]
    if c.name not in request.keep and not c.dates:
        rules += [
            ("id", share, c.is_unique and c.kind == "BYTES" and not _is_prose(c)),
            ("id", "counts the rows", is_int and counts),
            ("id", f"{share}, and named like one", is_int and _is_named(c, _ID)),
            ("id", f"names blocks of {c.block:.1f} rows", is_block(c)),
            ("text", length, _is_prose(c) and c.distinct > _ONE_HOT and not _has_words(c)),
        ]
    return next((Decision(c, why, reason) for reason, why, holds in rules if holds), None)


def _is_prose(c: Column) -> bool:
    """Whether a column holds sentences."""
    return c.kind == "BYTES" and not c.dates and (c.words > 4 or c.characters > 60)


def _has_words(c: Column) -> bool:
    """Whether it has words, and enough rows to learn them."""
    return _is_prose(c) and c.words > 4 and 0.7 * c.rows >= FEW_ROWS


def _parts(c: Column, request: Request) -> list[str]:
    """What of a date a model learns; not the month where it divides the rows: test has others."""
    return [part for part in c.parts if part != "month" or c.name != request.time]


def is_block(c: Column) -> bool:
    """Whether a column names things that stand in several rows, one after the other: households."""
    is_name = _is_named(c, _ID) or (c.kind == "INT" and c.high - c.low < 1.5 * c.distinct)
    return c.distinct >= 50 and 1.5 <= c.block <= 50 and is_name and not c.dates


def _is_named(c: Column, names: re.Pattern[str]) -> bool:
    """Whether a name ends in one of some words; those of `accountId` are account and Id."""
    return bool(names.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", c.name.strip())))


def use(c: Column, explains: float, request: Request) -> Decision:
    """The features of a column, or the decision to leave it out for its many categories."""
    if parts := _parts(c, request):
        date: Settings = {"column": c.name, "kind": "date", "format": c.dates, "missing": "own"}
        made = tuple((f"_{part}", date | {"part": part}) for part in parts)
        return Decision(c, f"{', '.join(parts)}: what recurs; a date itself only grows", None, made)
    if _has_words(c) and c.distinct > _ONE_HOT and c.name not in request.keep:
        why = f"{c.words:.0f} words on average, each with an embedding"
        tokens = int(min(100, max(8, 2 * c.words)))
        feature: Settings = {"kind": "text", "tokens": tokens, "top_k": 1_000, "embed": 8}
    elif c.kind == "BYTES" or _is_code(c):
        return _category(c, explains, request)
    elif 0.7 * c.rows >= FEW_ROWS:  # its own input where it is missing; any shape between its edges
        why, bins = "number, as its position among quantiles", max(2, min(48, c.distinct - 1))
        feature = {"kind": "numeric", "scale": "quantile", "missing": "own"}
        feature |= {"bins": bins} if bins < 48 else {}
    else:
        why, feature = "number", {"kind": "numeric", "missing": "mean"}
        if c.missing > 0.05:
            why = f"number; {c.missing:.0%} missing, which may tell something"
            buckets = max(2, min(20, c.distinct, c.present // 50))
            ranges = {"column": c.name, "kind": "bucketized", "buckets": buckets, "missing": "own"}
            return Decision(c, why, None, (("", feature), ("_range", ranges)), explains)
    return Decision(c, why, None, (("", feature),), explains)


def _is_code(c: Column) -> bool:
    """Whether whole numbers name things rather than measure them, by name, or digits and gaps.

    Whole numbers of which some are missing often come as 3.0.
    """
    if not c.whole or (c.kind == "FLOAT" and not c.missing):
        return False
    digits = {len(str(abs(int(end)))) for end in (c.low, c.high)}
    has_gaps = c.distinct < 0.5 * (c.high - c.low) and c.distinct * 20 < c.rows
    is_named = c.distinct > 2 and _is_named(c, _CODE)
    return is_named or (has_gaps and len(digits) == 1 and min(digits) >= 5)


def _category(c: Column, explains: float, request: Request) -> Decision:
    is_many, is_text = c.distinct > _ONE_HOT, c.kind == "BYTES"
    rows_each = c.present / max(1, c.distinct)
    if rows_each < 3 and is_many and c.name not in request.keep:
        why = f"{c.distinct:,} categories, {rows_each:.1f} rows each: too many to learn"
        return Decision(c, why, "categories")
    why = f"{c.distinct:,} categories"
    why += "" if is_text else ": codes by name or digits, not amounts"
    feature: Settings = {"kind": "vocabulary"}
    if c.distinct > (1_000 if is_text else 100):
        feature = {"kind": "hashed", "buckets": min(20_000, 2 * c.distinct)}
        why += ", too many to list"
    elif is_many:
        feature["min_count"] = max(2, round(c.rows / 10_000))
        why += "; rare ones share an id"
    feature |= {"tidy": True} if c.name in request.tidy else {}
    if is_many:  # the book's rule of thumb for Embeddings: the fourth root, here twice
        feature["embed"] = max(4, round(2 * c.distinct**0.25))
    return Decision(c, why, None, (("", feature | {"missing": "own"}),), explains)


def _split(
    table: pa.Table, decisions: list[Decision], request: Request
) -> tuple[Settings, str | None]:
    """`data.split`, and the column that is different in each row, if there is one."""
    ids = [d.column for d in decisions if d.excluded == "id"]
    names = [request.key] if request.key else [c.name for c in ids]
    counts = {name: pc.count_distinct(table[name], mode="all").as_py() for name in names}
    key = next((name for name in names if counts[name] == len(table)), None)
    is_few = len(table) < FEW_ROWS  # more of few rows judge, or chance does
    parts = {"train": 0.6 if is_few else 0.7, "eval": 0.1, "test": 0.3 if is_few else 0.2}
    if request.time:
        return {"by": "time", "time": request.time, **parts}, key
    by = request.key or next((c.name for c in ids if is_block(c)), key)
    return {**({"by": "key", "key": [by]} if by else {"by": "row"}), **parts}, key


def split_mistakes(table: pa.Table, proposal: Proposal) -> Iterator[str]:
    """Yields what a split lacks if a small table is divided as ingest will."""
    from components.ingest.rows import with_bytes
    from components.ingest.settings import SPLITS, Split
    from components.ingest.splitting import assign, find_cuts

    if table.num_rows > 20_000:  # each gets enough
        return
    [batch] = table.select(sorted(table.column_names)).combine_chunks().to_batches()
    split, batch = Split.model_validate(proposal.split), with_bytes(batch)
    cuts = find_cuts(dict(Counter(batch[split.time].to_pylist())), split) if split.time else None
    places, labels = assign(batch, split, cuts), table[proposal.label.name].to_pandas()
    otherwise = "" if split.by == "row" else f", or divide them otherwise than by {split.by}"
    for place, (name, fewest) in enumerate(zip(SPLITS, (20, 3, 5), strict=True)):
        own = labels[places == place]
        is_judged = proposal.target.problem == "binary" and name != "eval"
        if len(own) < fewest:
            sentence = f"{name} would get {len(own)} of the {len(labels)} rows, and needs {fewest}"
            yield f"{sentence}. Bring more rows{otherwise}"
        elif is_judged and own.nunique() < 2:
            rare, count = proposal.label.frequent[-1]
            sentence = f"{name} would get none of the {count} rows with the label '{rare}'"
            yield f"{sentence}. Bring more of them, at least 20 or so"
