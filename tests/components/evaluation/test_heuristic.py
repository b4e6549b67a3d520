from typing import Any

import numpy as np
import pytest

from components.evaluation.heuristic import Buckets, Rule, heuristic_problems, parse_rule
from components.evaluation.heuristic import rule_buckets as buckets_of
from tests.components.evaluation.samples import TABLE, TYPES


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("payment_type == 'Credit Card'", Rule("payment_type", "==", "Credit Card")),
        ('shop!="A"', Rule("shop", "!=", "A")),
        ("hour < 6", Rule("hour", "<", 6)),
        ("fare <= 10.5", Rule("fare", "<=", 10.5)),
        ("fare>-3", Rule("fare", ">", -3)),
        ("  the hour >= 1e2 ", Rule("the hour", ">=", 100.0)),
        ("shop == 'a == b'", Rule("shop", "==", "a == b")),
        ("'net price' >= 3", Rule("net price", ">=", 3)),
        ("it's >= 2", Rule("it's", ">=", 2)),
        ("'a >= b' == 'x'", Rule("a >= b", "==", "x")),
        (r"'it\'s \"a\"\n' != 1", Rule('it\'s "a"\n', "!=", 1)),
    ],
)
def test_rules_are_read(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("hour", "'hour' is not a rule: write COLUMN OP VALUE with one of == != < <= > >="),
        ("hour = 3", "'hour = 3' is not a rule"),
        ("'hour == 3", "is not a rule"),
        ("a >= b == 'x'", "a column with operators or quotation marks in its name is quoted"),
        ("== 3", "'== 3' is not a rule"),
        ("shop == A", "A in the rule 'shop == A' must be a number or a quoted text"),
        ("shop == True", "True in the rule 'shop == True' must be a number or a quoted text"),
        ("shop == ['A']", "must be a number or a quoted text"),
        ("hours == 3", "the rule's column 'hours' is not in the schema; did you mean 'hour'?"),
        ("xyz == 3", "the rule's column 'xyz' is not in the schema: score, shop, hour, bought"),
        ("bought == 1", "the rule's column 'bought' is the label"),
        ("mood == 'sad'", "the rule's column 'mood' is excluded as leakage"),
        ("hour == '3'", "the rule's column 'hour' is INT, so '3' must be a number"),
        ("shop == 3", "the rule's column 'shop' is BYTES, so 3 must be a quoted text"),
        ("shop < 'B'", "the rule's column 'shop' is text, which has only == and !=, not <"),
    ],
)
def test_a_wrong_rule_is_named(rule: str, sentence: str) -> None:
    (message,) = heuristic_problems(rule, TABLE, TYPES)
    assert sentence in message


@pytest.mark.parametrize("rule", ["mined", "hour >= 12", "shop == 'A'", "score < 0.5"])
def test_a_right_rule_has_no_problems(rule: str) -> None:
    assert not list(heuristic_problems(rule, TABLE, TYPES))


@pytest.mark.parametrize(
    ("text", "kind", "true", "false"),
    [
        ("n < 5", "INT", [4], [5, 6]),
        ("n <= 5", "INT", [4, 5], [6]),
        ("n <= 5.5", "INT", [5], [6]),
        ("n > 5", "INT", [6], [5, 4]),
        ("n >= 5", "INT", [5, 6], [4]),
        ("n < 10.1", "FLOAT", [10.0], [np.float32(10.1), 10.2]),
        ("n <= 10.1", "FLOAT", [np.float32(10.1)], [10.2]),
    ],
)
def test_a_boundary_divides_where_the_rule_does(
    text: str, kind: str, true: list[Any], false: list[Any]
) -> None:
    (start,) = buckets_of(parse_rule(text), kind).boundaries
    sides = [{float(value) >= start for value in values} for values in (true, false)]
    assert all(len(side) == 1 for side in sides)
    assert sides[0] != sides[1]


def test_buckets_say_what_they_hold() -> None:
    assert Buckets("shop", values=("A",)).names() == ["other", "'A'", "missing"]
    names = ["below 1", "1 to 2.5", "from 2.5", "missing"]
    assert Buckets("n", boundaries=(1.0, 2.5)).names() == names
    assert len(Buckets("n", boundaries=(1.0, 2.5))) == len(names)
