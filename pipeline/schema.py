"""The curated schema file: reading it, describing it, and checking a configuration against it."""

from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.errors import PipelineStop, did_you_mean
from components.features.table import Bucketized, Date, FeatureTable, Numeric
from components.settings import Problem


def read_schema(path: Path) -> schema_pb2.Schema:
    """Reads a schema in protobuf's text format.

    Raises:
      PipelineStop: the file is missing or cannot be parsed.
    """
    if not path.is_file():
        raise PipelineStop(f"There is no schema at {path}. Make one with: make schema")
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except text_format.ParseError as error:
        raise PipelineStop(f"{path} is not a schema in protobuf text format: {error}") from error


def diff(before: schema_pb2.Schema | None, after: schema_pb2.Schema) -> list[str]:
    """The changes, a line each, starting with '-' or '+'; empty if there are none."""
    old = _lines(before) if before is not None else {}
    new = _lines(after)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [
        f"{sign} {lines[name]}"
        for name in changed
        for sign, lines in (("-", old), ("+", new))
        if name in lines
    ]


def _lines(schema: schema_pb2.Schema) -> dict[str, str]:
    names = [feature.name for feature in schema.feature]
    return dict(zip(names, described(schema), strict=True))


def described(schema: schema_pb2.Schema) -> Iterator[str]:
    """Yields a readable line for each column."""
    domains = {domain.name: list(domain.value) for domain in schema.string_domain}
    for feature in schema.feature:
        yield f"{feature.name}: " + ", ".join(_facts(feature, domains))


def _facts(feature: schema_pb2.Feature, domains: dict[str, list[str]]) -> Iterator[str]:
    yield schema_pb2.FeatureType.Name(feature.type)
    fraction = feature.presence.min_fraction
    yield f"present in at least {fraction:.1%} of rows" if fraction else "optional"
    values = domains.get(feature.domain) or list(feature.string_domain.value)
    if values:
        shown = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
        yield f"one of {len(values)} values ({shown})"
    for domain in (feature.int_domain, feature.float_domain):
        if domain.HasField("min") or domain.HasField("max"):
            low = f"{domain.min:g}" if domain.HasField("min") else "-inf"
            yield f"from {low} to {domain.max:g}" if domain.HasField("max") else f"from {low}"


def table_problems(table: FeatureTable, types: dict[str, str]) -> Iterator[Problem]:
    """Yields where a feature table and the schema's columns disagree."""
    for path, column in _named_columns(table):
        if column not in types:
            yield path, f"the schema has no column '{column}'{did_you_mean(column, types)}"
    for name, feature in table.columns.items():
        column = table.column_of(name)
        if isinstance(feature, Numeric | Bucketized) and types.get(column) == "BYTES":
            yield (
                ("columns", name),
                f"'{column}' is text in the schema; use kind vocabulary or hashed",
            )
        elif isinstance(feature, Date) and column in types:
            are_numbers = feature.format in ("seconds", "milliseconds")
            if types[column] == ("BYTES" if are_numbers else "FLOAT"):
                wanted = "numbers since 1970" if are_numbers else "dates in text, or 20240131"
                text = f"'{column}' is {types[column]} in the schema; format {feature.format} reads"
                yield ("columns", name, "format"), f"{text} {wanted}"
    for column, why in table.exclude.items():
        if why == "bridged" and types.get(column) == "BYTES":
            yield ("exclude", column), f"'{column}' is text in the schema; bridged is 1 or 0"
    yield from _label_problems(table, types.get(table.label.column))
    known = {column for _, column in _named_columns(table)}
    for column in types:
        if column not in known:
            yield (), f"column '{column}' is neither used nor excluded; list it under 'exclude'"


def _label_problems(table: FeatureTable, kind: str | None) -> Iterator[Problem]:
    """Yields what a label of a type cannot be."""
    column, path = table.label.column, ("label", "classes")
    if kind == "BYTES" and table.problem == "regression":
        yield ("label", "column"), f"'{column}' is text in the schema; regression needs a number"
    elif table.problem == "multilabel":
        if kind not in (None, "BYTES"):
            text = f"'{column}' is {kind} in the schema; multilabel reads text such as"
            yield ("label", "column"), f"{text} 'a{table.label.separator}b'"
    elif kind == "BYTES" and table.label.classes is None:
        yield path, f"'{column}' is text in the schema; name its classes: [negative, positive]"
    elif kind is not None:
        try:
            table.label.values(kind)
        except ValueError:
            text = f"'{column}' is {kind} in the schema, and {table.label.classes} are not all"
            yield path, text


def _named_columns(table: FeatureTable) -> Iterator[tuple[tuple[str, ...], str]]:
    yield ("label", "column"), table.label.column
    if table.key is not None:
        yield ("key",), table.key
    for name in table.columns:
        yield from ((("columns", name), column) for column in table.columns_of(name))
    for column in table.exclude:
        yield ("exclude", column), column
    for index, columns in enumerate(table.slices):
        for column in columns:
            yield ("slices", str(index)), column
