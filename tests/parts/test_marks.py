"""Marks: what they take away, what stays as it is, and which mistakes are found."""

import textwrap

import pytest

from components.errors import PipelineStop
from pipeline.parts import marks


def _text(text: str) -> str:
    """`@` stands for a mark's beginning; this file has no marks itself."""
    return textwrap.dedent(text).replace("@ ", "# part: ")


def test_marked_lines_and_blocks_go_and_nothing_else() -> None:
    text = _text("""\
        import one
        import two  @ blue
        @ blue {
        two.start()
        @ }
        one.start()  # parting words: blue
        """)
    assert marks.without(text, ["blue"], "a.py") == (
        "import one\none.start()  # parting words: blue\n"
    )
    assert marks.without(text, ["red"], "a.py") == text
    assert marks.without(text, [], "a.py") == text


def test_a_line_that_needs_two_parts_goes_with_either() -> None:
    text = "kept\nboth" + _text("  @ blue and red\n")
    assert marks.without(text, ["blue"], "a") == marks.without(text, ["red"], "a") == "kept\n"


def test_a_block_may_lie_in_a_block() -> None:
    text = _text("""\
        @ blue {
        blue
        @ red {
        both
        @ }
        @ }
        """)
    assert marks.without(text, ["red"], "a") == _text("@ blue {\nblue\n@ }\n")
    assert marks.without(text, ["blue"], "a").strip() == ""


def test_empty_lines_around_a_gap_do_not_add_up() -> None:
    text = _text("""\
        a = 1

        @ blue {
        b = 2


        @ }


        def c():
            return 3

        @ red {
        d = 4
        @ }
        """)
    left = "a = 1\n\n\ndef c():\n    return 3\n"
    assert marks.without(text, ["blue", "red"], "a.py") == left
    assert marks.without(marks.without(text, ["red"], "a.py"), ["blue"], "a.py") == left


def test_markdown_has_marks_of_its_own() -> None:
    row = "| a | b <!-- part: blue --> |\n"
    code = _text("serve()  @ blue\n")
    assert marks.without(f"{row}{code}", ["blue"], "page.md") == code
    assert marks.without(code, ["blue"], "page.py").strip() == ""
    [mistake] = marks.mistakes(row, "page.py", ["blue"])
    assert "is nearly a mark" in mistake.text


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("@ blue {\na\n", 1, "nothing closes this block"),
        ("a\n@ }\n", 2, "nothing opens"),
        ("a  @ green\n", 1, "there is no part 'green'"),
        ("a  @ blue and green\n", 1, "there is no part 'green'"),
        ("a  @ blue, red\n", 1, "is nearly a mark"),
        ("a  @ Blue\n", 1, "is nearly a mark"),
        ("a\nb  @ blue{\n", 2, "is nearly a mark"),
        ("a  @  blue\n", 1, "is nearly a mark"),
    ],
)
def test_wrong_marks_are_found(text: str, line: int, words: str) -> None:
    [mistake] = marks.mistakes(_text(text), "a.py", ["blue", "red"])
    assert mistake.line == line
    assert words in mistake.text


def test_words_about_marks_are_none() -> None:
    text = "A mark is `" + _text("@ NAME`, or '@ NAME {'.\n")
    assert marks.mistakes(text, "a.py", []) == []


def test_nothing_is_removed_by_a_wrong_mark() -> None:
    with pytest.raises(PipelineStop, match=r"a\.py:2: nothing closes"):
        marks.without(_text("a\n@ blue {\nb\n"), ["blue"], "a.py")
