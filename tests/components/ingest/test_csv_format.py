"""Separators and encodings: what is read, and which setting a message names."""

import io

import pytest

from components.errors import PipelineStop
from components.ingest.opening import Source
from components.ingest.reading import read
from components.ingest.settings import CsvFormat

ROWS = "id,x,name\n1,1.5,größe\n2,,\n-3,2e3,“ß”\n"
FOUND = [
    {"id": 1, "name": "größe".encode(), "x": 1.5},
    {"id": 2, "name": None, "x": None},
    {"id": -3, "name": "“ß”".encode(), "x": 2000.0},
]


def rows_of(path, settings):
    return [row for batch in read(path, settings) for row in batch.to_pylist()]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_the_same_rows_come_from_any_separator_and_encoding(
    write, make_settings, separator, encoding, ending
):
    content = ROWS.replace(",", separator).encode(encoding)
    form = {"separator": separator, "encoding": encoding}
    assert rows_of(write(f"a.{ending}", content), make_settings(csv=form)) == FOUND


def test_a_tab_may_be_written_as_people_write_it(write, make_settings):
    path = write("a.csv", ROWS.replace(",", "\t"))
    assert rows_of(path, make_settings(csv={"separator": r"\t"})) == FOUND


@pytest.mark.parametrize("size", [5, 6, 7, 64, 1 << 16])
def test_characters_are_whole_wherever_a_block_ends(write, size):
    text = "añ€😀" * 50
    for encoding in ("utf-8", "utf-16", "shift_jis"):
        encoded = text.encode(encoding, "ignore")
        source = Source(write("a.txt", encoded), CsvFormat(encoding=encoding), marks=True)
        blocks = [*iter(lambda source=source: source.read(size), b"")]
        assert b"".join(blocks).decode() == encoded.decode(encoding)
        assert max(map(len, blocks)) <= max(size, 5)


@pytest.mark.parametrize(
    ("content", "form", "words"),
    [
        (ROWS.replace(",", ";"), {}, "one column with ';' in it; set data.csv.separator to ';'."),
        (ROWS.replace(",", "\t"), {}, r"one column with '\t' in it"),
        (ROWS, {"separator": ";"}, "one column with ',' in it"),
        (ROWS.encode("utf-16"), {}, "no utf-8; set data.csv.encoding"),
        (
            "id,x,größe\n1,1,a\n".encode("latin-1"),
            {},
            "no utf-8; set data.csv.encoding to the encoding of the file, e.g. latin-1",
        ),
        (
            "id,x,größe\n1,1,a\n",
            {"encoding": "latin-1"},
            "UTF-8 read as latin-1; set data.csv.encoding to utf-8",
        ),
        (
            ROWS.encode("cp1252"),
            {},
            r"line 2, column 'name': b'gr\xf6\xdfe' is not UTF-8",
        ),
        (ROWS.encode("cp1252"), {}, "in another encoding, set data.csv.encoding, e.g. to latin-1"),
        (
            b"id,x,name\n1,1,a\x81b\n",
            {"encoding": "cp1252"},
            r"line 2, column 'name': b'a\x81b' is not cp1252",
        ),
        (ROWS, {"encoding": "utf-16"}, "is not in the encoding utf-16. Set data.csv.encoding"),
        (ROWS.encode("utf-16")[:-1], {"encoding": "utf-16"}, "is not in the encoding utf-16"),
        (ROWS.replace(",", ";") + "4;x;y\n", {"separator": ";"}, "line 5, column 'x': 'x' is not"),
    ],
)
def test_a_message_names_the_setting(write, make_settings, content, form, words):
    path = write("a.csv", content)
    with pytest.raises(PipelineStop) as stop:
        rows_of(path, make_settings(csv=form))
    assert str(stop.value).startswith(path)
    assert words in str(stop.value)


@pytest.mark.parametrize(
    ("form", "problems"),
    [
        ({}, []),
        ({"separator": ";;"}, ["separator"]),
        ({"separator": ""}, ["separator"]),
        ({"separator": "§"}, ["separator"]),
        ({"separator": '"'}, ["separator"]),
        ({"encoding": "latin-99"}, ["encoding"]),
        ({"encoding": "base64", "separator": "\n"}, ["separator", "encoding"]),
    ],
)
def test_what_no_file_can_be_read_with_is_a_mistake_of_the_settings(make_settings, form, problems):
    assert [path for path, _ in make_settings(csv=form).problems()] == [
        ("csv", name) for name in problems
    ]


def test_an_encoding_nearly_right_is_guessed():
    ((_, message),) = CsvFormat(encoding="latin-99").problems()
    assert "'latin-99' is no encoding that Python knows; did you mean 'latin9'?" in message


def test_nothing_but_a_block_of_a_large_file_is_in_memory(write):
    path = write("a.csv", b"\xe9" * 3_000_000)
    source = Source(path, CsvFormat(encoding="latin-1"))
    sizes = [len(data) for data in iter(lambda: source.read(1 << 16), b"")]
    assert sum(sizes) == 6_000_000
    assert max(sizes) <= 1 << 16
    assert isinstance(io.BufferedReader(Source(path)).read(10), bytes)
