"""Names of slices: readable where they can be, and never two slices under one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.slices import OVERALL, columns_of, slice_name

Parts = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([], OVERALL),
        ([("payment_type", "Credit Card"), ("hour", 3)], "payment_type=Credit Card, hour=3"),
        ([("a", "1"), ("b", "2")], "a=1, b=2"),
        ([("a", "1, b=2")], 'a="1, b=2"'),
        ([("a\nb", 'say "hi"')], r'"a\nb"="say \"hi\""'),
        ([("größe", "מחיר")], "größe=מחיר"),
    ],
)
def test_only_what_could_be_misread_is_quoted(parts: Parts, name: str) -> None:
    assert slice_name(parts) == name


_WORDS = st.text(max_size=8) | st.text('ab=", \\\n', min_size=1, max_size=5)


@given(st.lists(st.tuples(_WORDS, _WORDS), min_size=1, max_size=3))
def test_the_columns_come_back(parts: Parts) -> None:
    assert columns_of(slice_name(parts)) == sorted(column for column, _ in parts)


@given(*[st.lists(st.tuples(_WORDS, _WORDS), min_size=1, max_size=2)] * 2)
def test_different_slices_have_different_names(one: Parts, other: Parts) -> None:
    assert (slice_name(one) == slice_name(other)) == (one == other)
