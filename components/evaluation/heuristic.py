"""The Heuristic Benchmark (book pattern 28): a rule on one column that a model has to beat.

`COLUMN OP VALUE`, the column quoted where its name needs it, or 'mined' for the best such rule on
one of the model's columns. Either way it is a division of one raw column's values into buckets, a
missing value in a bucket of its own, with predictions learned from the training rows
(`components.evaluation.heuristic_model`).
"""

import ast
import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.features.table import FeatureTable

MINED = "mined"

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_RULE = re.compile(
    rf"\s*(?P<column>{_QUOTED}|[^'\"].*?)\s*(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>.+?)\s*", re.DOTALL
)

Value = str | int | float


@dataclass(frozen=True)
class Rule:
    """A comparison of a raw column with a value."""

    column: str
    op: str
    value: Value


@dataclass(frozen=True)
class Buckets:
    """Which values of a raw column are treated alike.

    Either `values`: each has a bucket of its own, after bucket 0 for all others; or `boundaries`:
    increasing, each the start of a bucket. The last bucket is for missing values.
    """

    column: str
    values: tuple[Value, ...] = ()
    boundaries: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.values) + len(self.boundaries) + 2

    def names(self) -> list[str]:
        """What each bucket holds, in words."""
        if self.values:
            return ["other", *(f"{value!r}" for value in self.values), "missing"]
        starts = [f"{start:g}" for start in self.boundaries]
        between = [f"{low} to {high}" for low, high in itertools.pairwise(starts)]
        return [f"below {starts[0]}", *between, f"from {starts[-1]}", "missing"]


def parse_rule(text: str) -> Rule:
    """Reads `COLUMN OP VALUE`.

    A column with an operator or a quotation mark in its name is quoted, as Python quotes a text:
    `'net price >= 3' == 1`.

    Raises:
        ValueError: With a sentence that says what is wrong.
    """
    match = _RULE.fullmatch(text)
    if not match:
        raise ValueError(
            f"'{text}' is not a rule: write COLUMN OP VALUE with one of == != < <= > >=, "
            f"such as \"payment_type == 'Cash'\", or '{MINED}'"
        )
    value = _literal(match["value"])
    if isinstance(value, bool) or not isinstance(value, Value):
        raise ValueError(
            f"{match['value']} in the rule '{text}' must be a number or a quoted text; "
            "a column with operators or quotation marks in its name is quoted, too"
        )
    column = match["column"]
    if column[0] in "'\"":
        column = _literal(column)
    return Rule(column, match["op"], value)


def _literal(text: str) -> Any:
    """A Python literal's value; None if it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def heuristic_problems(
    rule: str, table: FeatureTable, schema_columns: Mapping[str, str]
) -> Iterator[str]:
    """Yields what is wrong with a rule, a sentence each.

    Args:
        rule: The setting.
        table: The feature table.
        schema_columns: The schema's columns, each with its type: BYTES, INT or FLOAT.
    """
    if rule == MINED:
        return
    try:
        parsed = parse_rule(rule)
    except ValueError as error:
        yield str(error)
        return
    column = parsed.column
    if column not in schema_columns:
        close = difflib.get_close_matches(column, schema_columns, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f": {', '.join(schema_columns)}"
        yield f"the rule's column '{column}' is not in the schema{hint}"
    elif column == table.label.column:
        yield f"the rule's column '{column}' is the label"
    elif table.exclude.get(column) == "leakage":
        yield f"the rule's column '{column}' is excluded as leakage: it knows the label"
    else:
        yield from _type_problems(parsed, schema_columns[column])


def _type_problems(rule: Rule, kind: str) -> Iterator[str]:
    is_text = kind == "BYTES"
    if is_text != isinstance(rule.value, str):
        wanted = "a quoted text" if is_text else "a number"
        yield f"the rule's column '{rule.column}' is {kind}, so {rule.value!r} must be {wanted}"
    elif is_text and rule.op not in ("==", "!="):
        yield f"the rule's column '{rule.column}' is text, which has only == and !=, not {rule.op}"


def rule_buckets(rule: Rule, kind: str) -> Buckets:
    """The buckets in which the rule does and does not hold; `kind` is the column's type.

    A number is compared as the column stores it: 10.1 means the float32 nearest to it.
    """
    if rule.op in ("==", "!="):
        return Buckets(rule.column, values=(rule.value,))
    stored = np.float32 if kind == "FLOAT" else np.float64
    start = stored(rule.value)
    if rule.op in ("<=", ">"):
        start = np.nextafter(start, stored(math.inf))
    return Buckets(rule.column, boundaries=(float(start),))
