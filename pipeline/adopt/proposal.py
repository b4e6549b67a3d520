"""What `adopt` proposes: what becomes of each column, and the settings with their reasons."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import PipelineStop
from pipeline.adopt import judging
from pipeline.adopt.judging import Target
from pipeline.adopt.part import Request
from pipeline.adopt.table import KINDS, Column, profile, remarks, sample

Settings = dict[str, Any]
Reasons = dict[tuple[str, ...], str]
"""Why a setting is what it is, by its path."""

FEW_ROWS = 1_000
_MOST_BINS = 48
_RARE = 0.1
"""A class of two with a smaller share is rare."""
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
    features: tuple[tuple[Settings, str], ...] = ()
    """Settings of its features, each with its reason; the first bears the column's name."""
    explains: float = 0.0
    """The share of the label's variance that it explains alone."""


@dataclass(frozen=True)
class Proposal:
    """What the configuration is written from, and what is told."""

    name: str
    """Of the configuration."""
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
    deviation: float
    """Of the label; 0 for classes."""
    row: dict[str, Any]
    """The features' columns of one row, those with a value."""
    remarks: list[str]
    """What is odd in the columns, a sentence each."""


def propose(name: str, table: pa.Table, request: Request) -> Proposal:
    """Decides everything about a table in the schema's types, of which every row has a label.

    Raises:
      PipelineStop: the label fits no problem, or no column is left to learn from.
    """
    columns = profile(table)
    odd = [remark for column in columns.values() for remark in remarks(column, request)]
    label = columns.pop(request.label)
    try:
        target = judging.label_set(table[request.label], request.problem)
        target = target or judging.target(label, request.problem)
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
    [row] = table.select(used).slice(0, 1).to_pylist()
    is_regression = target.problem == "regression"
    split, key = _split(table, decisions, request)
    return Proposal(
        name=name,
        label=label,
        target=target,
        decisions=decisions,
        rows=table.num_rows,
        split=split,
        key=key,
        deviation=pc.stddev(table[request.label]).as_py() if is_regression else 0.0,
        row={name: value for name, value in row.items() if value is not None},
        remarks=odd,
    )


def _decisions(
    table: pa.Table, columns: dict[str, Column], target: Target, request: Request
) -> list[Decision]:
    outputs = len(target.classes or ()) if target.problem == "multiclass" else 1
    rows = sample(table, min(50_000, 20_000_000 // (outputs * len(columns)))).to_pandas()
    label = rows.pop(request.label)
    if target.problem == "multilabel":  # judged by the class that is the most even
        listed = {name: label.str.contains(name, regex=False) for name in target.classes or ()}
        label = min(listed.values(), key=lambda has: abs(has.mean() - 0.5)).astype(int)
        target = replace(target, problem="binary")
    elif target.classes:
        label = label.map({value: index for index, value in enumerate(target.classes)})
    out = {name: found for name, c in columns.items() if (found := exclusion(c, request))}
    rows = rows[[name for name in columns if name not in out]]
    scores = judging.scores(rows, label, target.problem)
    if len(rows) >= judging.LEAK_ROWS:
        leaks = scores[(scores.certain > judging.LEAK) & ~scores.index.isin(request.keep)]
        measure = judging.MEASURES[target.problem]
        for name, value in leaks.value.items():
            out[name] = (
                "leakage",
                f"alone reaches {measure} {value:.3f} on rows that it has not seen",
            )
        free = rows[[name for name in rows if name not in out and name not in request.keep]]
        summands = judging.summands(free, label) if target.problem == "regression" else []
        for name in summands:
            others = " and ".join(other for other in summands if other != name)
            out[name] = (
                "leakage",
                f"sums to the label with {others}: a linear model has R2 > 0.99",
            )
    out = {**_duplicates(rows.drop(columns=[*request.keep], errors="ignore")), **out}
    return [
        Decision(column, out[name][1], out[name][0])
        if name in out
        else use(column, scores.loc[name], request)
        for name, column in columns.items()
    ]


def exclusion(c: Column, request: Request) -> tuple[str, str] | None:
    """Why a column is left out whatever the label: as in `features.exclude`, and a sentence."""
    is_text, share = (
        c.kind == "BYTES",
        f"different in {c.distinct / max(1, c.present):.0%} of the rows",
    )
    is_time, is_named = c.name == request.time, bool(_ID.search(_words(c.name)))
    is_prose = _is_prose(c)
    counts = c.distinct == c.present and (c.rises or c.high - c.low < 1.5 * c.rows)
    asked = (
        ("choice", "left out with --exclude", c.name in request.exclude),
        ("time", "the rows are divided by it (--time)", is_time and not _parts(c, request)),
        ("id", "named with --key", c.name == request.key),
    )
    empty = (
        ("sparse", f"{c.present:,} of {c.rows:,} rows have a value", c.present <= 0.01 * c.rows),
        (
            "constant",
            f"always {c.frequent[0][0]!r:.40}" if c.frequent else "",
            c.distinct == 1 and not c.missing,
        ),
        ("time", "no month, weekday or hour of it differs", c.dates and not _parts(c, request)),
    )
    seen = (
        ("id", share, c.is_unique and is_text and not is_prose),
        ("id", "counts the rows", c.is_unique and c.kind == "INT" and counts),
        ("id", f"{share}, and named like one", is_named and c.is_unique and c.kind == "INT"),
        ("id", f"names blocks of {c.block:.1f} rows", is_block(c)),
        (
            "text",
            f"{c.words:.0f} words, {c.characters:.0f} characters",
            is_prose and c.distinct > _ONE_HOT and not _has_words(c),
        ),
    )
    rules = asked if c.name in request.keep else asked + empty + (() if c.dates else seen)
    return next(((reason, why) for reason, why, holds in rules if holds), None)


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
    is_number = c.kind == "INT" and c.high - c.low < 1.5 * c.distinct
    is_name = is_number or _ID.search(_words(c.name))
    return c.distinct >= 50 and 1.5 <= c.block <= 50 and bool(is_name) and not c.dates


def _words(name: str) -> str:
    """A name with its words set apart: `accountId` is `account_Id`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())


def _duplicates(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The columns that have the same values as one before."""
    digests = {}
    for name in rows:
        values = pd.util.hash_pandas_object(rows[name], index=False).to_numpy()
        digests[name] = sha256(values).hexdigest()
    first = {digest: name for name, digest in reversed(digests.items())}
    return {
        name: ("duplicate", f"the same values as '{first[digest]}'")
        for name, digest in digests.items()
        if first[digest] != name
    }


def use(c: Column, score: "pd.Series[float]", request: Request) -> Decision:
    """The features of a column, or the decision to leave it out for its many categories."""
    if parts := _parts(c, request):
        base: Settings = {"column": c.name, "kind": "date", "format": c.dates, "missing": "own"}
        why = f"{', '.join(parts)}: what recurs; a date itself only grows"
        return Decision(c, why, None, tuple((base | {"part": p}, why) for p in parts))
    if _has_words(c) and c.distinct > _ONE_HOT and c.name not in request.keep:
        words = {"kind": "text", "tokens": int(min(100, max(8, 2 * c.words))), "top_k": 1_000}
        why = f"{c.words:.0f} words on average, each with an embedding"
        return Decision(c, why, None, ((words | {"embed": 8}, why),), score.by_bins)
    if c.kind == "BYTES" or _is_code(c):
        return _category(c, request, score.by_bins)
    if 0.7 * c.rows >= FEW_ROWS:  # its own input where it is missing; any shape between its edges
        bins = max(2, min(_MOST_BINS, c.distinct - 1))
        settings: Settings = {"kind": "numeric", "scale": "quantile", "missing": "own"}
        settings |= {"bins": bins} if bins < _MOST_BINS else {}
        why = "number, as its position among quantiles"
        return Decision(c, why, None, ((settings, why),), score.by_bins)
    number = ({"kind": "numeric", "missing": "mean"}, "number")
    if c.missing <= 0.05:
        return Decision(c, "number", None, (number,), score.by_bins)
    why = f"{c.missing:.0%} missing, which may tell something"
    buckets = max(2, min(20, c.distinct, c.present // 50))
    ranges = ({"kind": "bucketized", "buckets": buckets, "missing": "own"}, why)
    return Decision(c, f"number; {why}", None, (number, ranges), score.by_bins)


def _is_code(c: Column) -> bool:
    """Whether whole numbers name things rather than measure them, by name, or digits and gaps.

    Whole numbers of which some are missing often come as 3.0.
    """
    if not c.whole or (c.kind == "FLOAT" and not c.missing):
        return False
    digits = {len(str(abs(int(end)))) for end in (c.low, c.high)}
    has_gaps = c.distinct < 0.5 * (c.high - c.low) and c.distinct * 20 < c.rows
    is_named = c.distinct > 2 and bool(_CODE.search(_words(c.name)))
    return is_named or (has_gaps and len(digits) == 1 and min(digits) >= 5)


def _category(c: Column, request: Request, explains: float) -> Decision:
    is_many, is_text = c.distinct > _ONE_HOT, c.kind == "BYTES"
    rows_each = c.present / max(1, c.distinct)
    if rows_each < 3 and is_many and c.name not in request.keep:
        why = f"{c.distinct:,} categories, {rows_each:.1f} rows each: too many to learn"
        return Decision(c, why, "categories")
    why = f"{c.distinct:,} categories"
    why += "" if is_text else ": codes by name or digits, not amounts"
    settings: Settings = {"kind": "vocabulary"}
    if c.distinct > (1_000 if is_text else 100):
        settings = {"kind": "hashed", "buckets": min(20_000, 2 * c.distinct)}
        why += ", too many to list"
    elif is_many:
        settings["min_count"] = max(2, round(c.rows / 10_000))
        why += "; rare ones share an id"
    settings |= {"tidy": True} if c.name in request.tidy else {}
    if is_many:  # the book's rule of thumb for Embeddings: the fourth root, here twice
        settings["embed"] = max(4, round(2 * c.distinct**0.25))
    return Decision(c, why, None, ((settings | {"missing": "own"}, why),), explains)


def _split(
    table: pa.Table, decisions: list[Decision], request: Request
) -> tuple[Settings, str | None]:
    """`data.split`, and the column that is different in each row, if there is one."""
    ids = [d.column for d in decisions if d.excluded == "id"]
    blocks = [c.name for c in ids if is_block(c)]
    names = [request.key] if request.key else [c.name for c in ids]
    counts = {name: pc.count_distinct(table[name], mode="all").as_py() for name in names}
    key = next((name for name in names if counts[name] == len(table)), None)
    is_few = table.num_rows < FEW_ROWS  # more of few rows judge, or chance does
    parts = {"train": 0.6 if is_few else 0.7, "eval": 0.1, "test": 0.3 if is_few else 0.2}
    if request.time:
        return {"by": "time", "time": request.time, **parts}, key
    by = request.key or next(iter(blocks), key)
    return {**({"by": "key", "key": [by]} if by else {"by": "row"}), **parts}, key


def split_mistakes(table: pa.Table, proposal: Proposal) -> Iterator[str]:
    """Yields what a split lacks if a small table is divided as ingest will."""
    from components.ingest.settings import SPLITS, Split
    from components.ingest.splitting import assign, find_cuts

    if table.num_rows > 20_000:  # each gets enough
        return
    types = {"INT": pa.int64(), "FLOAT": pa.float32(), "BYTES": pa.binary()}
    fields = [(name, types[KINDS[table[name].type]]) for name in sorted(table.column_names)]
    ordered = table.select([name for name, _ in fields]).cast(pa.schema(fields), safe=False)
    [batch] = ordered.combine_chunks().to_batches()
    split = Split.model_validate(proposal.split)
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


def sizes(rows: int) -> tuple[Settings, Settings, str]:
    """`model` and `training` for so many training rows, and why."""
    is_few = rows < FEW_ROWS
    batch = 32 if is_few else 64 if rows < 2_000 else 256
    pass_steps = max(1, -(-rows // batch))
    steps = 600 if is_few else min(4_000, max(1_500, 40 * pass_steps))
    model: Settings = {"hidden": [64, 64], "dropout": 0.1, "members": 8, "wide": True}
    training: Settings = {
        "seed": 42,
        "steps": steps,
        "global_batch_size": batch,
        "learning_rate": {"initial": 0.003, "schedule": "cosine"},
        "evaluate_every_steps": steps // 20,
        "early_stopping": {"metric": "loss", "patience": 8},
    }
    if is_few:  # so small an eval split cannot say when to stop
        model = {"hidden": [16], "dropout": 0.5, "l2": 0.01, "wide": True}
        training |= {"early_stopping": None, "evaluate_every_steps": steps // 10}
        training["learning_rate"] = {"initial": 0.005, "schedule": "cosine"}
        return model, training, "few rows: a small network, much dropout, no early stopping"
    return model, training, "an ensemble in one network; stops when eval's loss no longer falls"


def settings(p: Proposal, schema_file: str, data: Settings) -> tuple[Settings, Reasons]:
    """The whole configuration, and why each choice is as it is.

    Args:
      p: the proposal.
      schema_file: the schema's path.
      data: where the rows are: settings of `data`, without the split.
    """
    model, training, why = sizes(round(p.rows * p.split["train"]))
    test_rows = p.rows * p.split["test"]
    least = int(min(100, max(20, test_rows // 10)))
    reasons: Reasons = {("training",): why, **_reasons(p, test_rows)}
    columns, taken = {}, {d.column.name for d in p.decisions} | {p.label.name}
    for d in p.decisions:
        for number, (more, reason) in enumerate(d.features):
            feature, column = d.column.name, dict[str, str]()
            if number or "part" in more:
                feature, column = f"{feature}_{more.get('part', 'range')}", {"column": feature}
                while feature in taken:
                    feature += "_"
            columns[feature] = column | more
            reasons["features", "columns", feature] = reason
    excluded = {
        d.column.name: d.excluded for d in p.decisions if d.excluded and d.column.name != p.key
    }
    classes: Settings = (
        {} if p.target.classes in (None, (0, 1)) else {"classes": [*(p.target.classes or ())]}
    )
    if p.target.separator not in ("", "|"):
        classes["separator"] = p.target.separator
    share = p.label.frequent[-1][1] / p.label.present if p.target.problem == "binary" else 1.0
    if share < _RARE:
        training["rebalance"] = {"initial_bias": True}
        reasons["training", "rebalance"] = (
            f"{share:.1%} are of the rare class: start there; {{keep: [0.2, 1.0]}} reads a fifth "
            "of the other rows (Rebalancing)"
        )
    features = {
        "problem": p.target.problem,
        "label": {"column": p.label.name, **classes},
        **({"key": p.key} if p.key else {}),
        "columns": columns,
        **({"exclude": excluded} if excluded else {}),
        "slices": _slices(p, least * p.label.rows / test_rows),
    }
    limits = judging.thresholds(p.label, p.target.problem, test_rows, p.deviation)
    return {
        "name": p.name,
        "workspace": "workspace",
        "data": {**data, "sample": 1.0, "split": p.split},
        "schema_file": schema_file,
        "features": features,
        "gate": {"stop_on": "error", "tolerate": []},
        "model": model,
        "training": training,
        "evaluation": {"heuristic": "mined", "min_slice_size": least, "thresholds": limits},
        "registry": {"model": p.name, "promote": "manual"},
        "beam": {"runner": "FnApiRunner", "mode": "in_memory", "workers": 1},
    }, reasons


def _slices(p: Proposal, least: float) -> list[list[str]]:
    """Up to three columns of which two values have so many rows, and the first two crossed.

    Those that tell most of the label come first.
    """
    kinds = [d for d in p.decisions if d.features and d.column.kind != "FLOAT"]
    kinds = [d for d in kinds if not d.column.dates]
    few = [d for d in kinds if d.column.distinct <= _ONE_HOT]
    known = [d for d in few if sum(n >= least for _, n in d.column.frequent) > 1]
    first = sorted(known, key=lambda d: -d.explains)[:3]
    slices = [[d.column.name] for d in first]
    if (
        len(first) > 1
        and first[0].column.distinct * first[1].column.distinct * least < p.label.rows
    ):
        slices.append([d.column.name for d in first[:2]])
    return slices


def _reasons(p: Proposal, test_rows: float) -> Reasons:
    """Why the choices are as they are that are no column's feature."""
    rare = f". Few rows for a model to learn from: {p.target.rare}" if p.target.rare else ""
    split = {
        "row": "no column identifies a row. Do several rows belong together, as a customer's? Then "
        "{by: key, key: [COLUMN], ...}, so that they are never on both sides",
        "key": "rows with the same value are never on both sides",
        "time": "the last rows test, as the future will",
    }[p.split["by"]]
    times = [d.column.name for d in p.decisions if d.column.dates]
    if times and p.split["by"] != "time":
        split += (
            ". Is the model to predict the future? Then "
            f"{{by: time, time: {times[0]}, ...}}: harder, and more honest, than rows of all times"
        )
    excluded = {("features", "exclude", d.column.name): d.why for d in p.decisions if d.excluded}
    return excluded | {
        ("data", "split"): split,
        ("features", "problem"): p.target.why + rare,
        ("features", "key"): "different in each row",
        (
            "features",
            "slices",
        ): "columns with a few values, those that tell most of the label first",
        (
            "evaluation",
            "heuristic",
        ): "the best rule on one column; better: one that your business uses",
        ("evaluation", "thresholds"): "Nearly as good as that rule, and as the champion: what is "
        f"allowed is what chance does with {test_rows:,.0f} test rows. Add what the model has to "
        "reach: at_least.",
        ("registry",): f"make promote CONFIG={p.name} VERSION=candidate",
    }
