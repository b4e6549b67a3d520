"""Safe names: plain ones stay, and no two are the same, whatever a system takes for one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.features.names import safe_names


def test_plain_names_stay_as_they_are() -> None:
    plain = ["fare", "trip_miles", "CRIM", "x1", "n" * 64]
    assert safe_names(plain) == dict(zip(plain, plain, strict=True))


@pytest.mark.parametrize(
    "name",
    ["net price", "1st", "_x", "class", "True", "Self", "key", "n" * 65, "\u00fc", "", "a\n"],
)
def test_another_name_gets_a_hash(name: str) -> None:
    (safe,) = safe_names([name]).values()
    assert re.fullmatch(r"c_\w*_[0-9a-f]{12}", safe, re.ASCII)


@given(st.sets(st.text(max_size=80) | st.text("aAbB_ .", max_size=4), max_size=30))
def test_no_two_are_the_same_even_where_case_does_not_count(names: set[str]) -> None:
    safe = safe_names(names)
    assert set(safe) == names
    assert len({name.lower() for name in safe.values()}) == len(names)
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", name) for name in safe.values())
