"""What the ingest step is told: typed, frozen, and part of its cache key.

`pipeline.config` embeds `Split`, `Spans`, `CsvFormat` and `BadRows` in its own models; the
component never imports it.
"""

import codecs
import json
from collections.abc import Iterator
from encodings.aliases import aliases
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt

from components.errors import did_you_mean
from components.settings import Problem, Settings, Strict

SPLITS = ("train", "eval", "test")
"""The splits, in chronological order where the data is split by time."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Kind = Literal["INT", "FLOAT", "BYTES"]


class SpanRange(Strict):
    """Spans `first` to `last`, both included (TFX's static range)."""

    first: NonNegativeInt
    last: NonNegativeInt


class RollingSpans(Strict):
    """The newest `count` spans, without the newest `skip` (TFX's rolling range)."""

    count: PositiveInt
    skip: NonNegativeInt = 0
    last: NonNegativeInt | None = Field(default=None, description="Never a span after this one.")
    start: NonNegativeInt = Field(default=0, description="Never a span before this one.")


Spans = Literal["newest"] | NonNegativeInt | SpanRange | RollingSpans


class Split(Settings):
    """Which rows train, which steer the training, and which judge it (Repeatable Splitting)."""

    by: Literal["row", "key", "time"] = Field(
        description="'row': a hash of the whole row; 'key': a hash of the `key` columns; 'time': "
        "the last fraction by the `time` column is test, the one before it eval."
    )
    key: list[str] = Field(default_factory=list, description="Columns to hash, for by: key.")
    time: str | None = Field(default=None, description="Column to order by, for by: time.")
    train: Fraction
    eval: Fraction = Field(description="For early stopping and tuning only.")
    test: Fraction = Field(description="For the Evaluator only.")

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields."""
        total = self.train + self.eval + self.test
        if abs(total - 1) > 1e-9:
            yield (), f"train + eval + test is {total:g}; the three must add up to 1"
        if (self.by == "key") != bool(self.key):
            yield ("key",), "names the columns to hash if, and only if, 'by' is 'key'"
        if (self.by == "time") != bool(self.time):
            yield ("time",), "names the column to order by if, and only if, 'by' is 'time'"


_USUAL = ("utf-8", "latin-1", "cp1252", "utf-16")
_SUCH = f"; usual: {', '.join(_USUAL)}"
_NO_FILES = ("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem")
_NULLS = ("NA", "N/A", "null", "NULL", "None", "nan", "NaN", "-nan", "?", "-", "\\N", "#N/A")


def _tab(value: object) -> object:
    """A tab as people write it in YAML without quotes, and on a command line."""
    return "\t" if value == "\\t" else value


class CsvFormat(Settings):
    """How CSV files are written, and what stands for no value. Parquet files say so themselves."""

    separator: Annotated[str, BeforeValidator(_tab)] = Field(
        ",", description='Between fields; one character: ",", ";", "\\t" (a tab), "|".'
    )
    quote: str = Field('"', description='Around fields with separators; "" if there is none.')
    encoding: str = Field(
        "utf-8", description="By Python's name of it: utf-8, latin-1, cp1252, utf-16, shift_jis."
    )
    decimal: Literal[".", ","] = Field(".", description="Before the fraction of a number.")
    thousands: Literal["", ".", ",", " ", "'"] = Field(
        "",
        description="Between groups of three digits of a number; also taken where there is none.",
    )
    units: list[str] = Field(
        [], description="Texts that may stand before or behind a number, such as $ or %; left out."
    )
    nulls: list[str] = Field(
        [*_NULLS],
        description="Texts that stand for a missing value in columns of numbers and in the label, "
        "also in Parquet and JSON; an empty field is missing in any column.",
    )

    @property
    def is_utf8(self) -> bool:
        """Whether the bytes can be taken as they are."""
        return codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig")

    def problems(self) -> Iterator[Problem]:
        """Yields what no file can be read with."""
        for name, text in (("separator", self.separator), ("quote", self.quote)):
            is_mark = len(text) == 1 and text.isascii() and text not in "\r\n\0"
            if not is_mark and (name, text) != ("quote", ""):
                yield (name,), f"must be one ASCII character, and no line end; got {text!r}"
        if self.quote == self.separator:
            yield ("separator",), f"and quote are both {self.quote!r}; they must differ"
        if self.thousands == self.decimal:
            yield ("thousands",), f"and decimal are both {self.decimal!r}; they must differ"
        for unit in self.units:
            if not unit.strip() or any(c.isdigit() or c in ".,+-" for c in unit):
                yield ("units",), f"must be such as '$' or '%', without digits; got {unit!r}"
        try:
            codec = codecs.lookup(self.encoding)
        except (LookupError, ValueError):
            guess = did_you_mean(self.encoding.lower(), [*aliases, *_USUAL])
            yield (
                ("encoding",),
                f"'{self.encoding}' is no encoding that Python knows{guess or _SUCH}",
            )
        else:
            if not codec._is_text_encoding or codec.name.replace("-", "_") in _NO_FILES:
                yield ("encoding",), f"'{self.encoding}' is no encoding of text files{_SUCH}"


class BadRows(Strict):
    """What happens to rows that cannot be used: a value not of its type, fields too few or many."""

    action: Literal["fail", "quarantine"] = Field(
        "fail",
        description="fail: the first ones stop the run. quarantine: they are written, with the "
        "reasons, beside the examples, and the others go on.",
    )
    at_most: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="quarantine: if more than this fraction of all rows is bad, stop."
    )


class NamedTable(Strict):
    """Files that a query reads beside the rows."""

    files: list[str]
    columns: dict[str, Kind] = Field(default_factory=dict)


class Query(Strict):
    """What the rows are put through before they are divided, predicted or judged."""

    sql: str
    over: Literal["row", "span"] = "row"
    columns: dict[str, Kind] = Field(default_factory=dict)
    tables: dict[str, NamedTable] = Field(default_factory=dict)

    def files(self) -> list[str]:
        """All files of its tables."""
        return [file for table in self.tables.values() for file in table.files]


class IngestSettings(Strict):
    """All that decides which examples come out of which rows."""

    columns: dict[str, Kind] = Field(
        min_length=1, description="Every column of the files and its type, from the curated schema."
    )
    label: str = Field(description="The column to predict; an empty one is an error.")
    required: list[str] = Field(
        default_factory=list, description="More columns of which an empty value is an error."
    )
    split: Split | None = Field(description="null: every row is test, for an evaluation.")
    test_spans: Literal["all", "newest"] = Field(
        default="all", description="Of which spans the test rows are used."
    )
    sample: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Use this fraction of the rows, always the same ones (by hash)."
    )
    spans: Spans = Field(default="newest", description="Which spans, if the pattern has any.")
    csv: CsvFormat = Field(default=CsvFormat(), description="How CSV files are written.")
    query: Query | None = Field(default=None, description="What the rows are put through.")
    bad_rows: BadRows = BadRows()
    code: str = Field(default="", description="A fingerprint of this code, for the cache key.")

    def names(self) -> list[str]:
        """All columns in the one order that hashing and writing use."""
        return sorted(self.columns)

    def filled(self) -> list[str]:
        """The columns of which an empty value is an error: label, split columns, `required`."""
        time = [self.time] if self.time else []
        keys = self.split.key if self.split else []
        return sorted({self.label, *self.required, *keys, *time})

    @property
    def time(self) -> str | None:
        """The column that the data is split by in time, if it is."""
        return self.split.time if self.split else None

    @property
    def quarantines(self) -> bool:
        """Whether bad rows are set aside instead of stopping the run."""
        return self.bad_rows.action == "quarantine"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that come out."""
        return SPLITS if self.split else ("test",)

    def to_json(self) -> str:
        """The settings as a string that depends on nothing but their values."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)
