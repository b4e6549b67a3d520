"""What a version takes and gives, as its callers see it: the part of a manifest they depend on.

`manifest["signature"]` is {"inputs": {column: {"type": "INT" | "FLOAT" | "BYTES", "required":
bool}}, "ignored": [column], "problem": "binary" | "multiclass" | "regression", "classes": list or
None}. Types are those of the schema. A column is required if a missing value of it is an error;
ignored are the data's other columns, which a caller may send and which change nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from components.errors import PipelineStop
from components.features.table import FeatureTable

Signature = dict[str, Any]

_PARTS = {"inputs", "ignored", "problem", "classes"}


def describe(table: FeatureTable, types: Mapping[str, str]) -> Signature:
    """The signature of a model with these features.

    Args:
        table: The features.
        types: The schema's type of every column.
    """
    columns, required = table.raw_columns(), set(table.required_columns())
    return {
        "inputs": {c: {"type": types[c], "required": c in required} for c in columns},
        "ignored": sorted(set(types) - set(columns)),
        "problem": table.problem,
        "classes": table.label.classes,
    }


def column_types(schema: schema_pb2.Schema) -> dict[str, str]:
    """The schema's columns, each with its type: BYTES, INT or FLOAT."""
    return {f.name: schema_pb2.FeatureType.Name(f.type) for f in schema.feature}


def types_in(uri: str) -> dict[str, str]:
    """The same of a schema artifact, by its folder."""
    from tfx.utils import io_utils  # TFX, which takes seconds

    return column_types(io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(uri)))


def of(manifest: Mapping[str, Any]) -> Signature:
    """A version's signature.

    Raises:
        PipelineStop: If the version was filed before there were signatures, or its is damaged.
    """
    found: Signature = manifest.get("signature") or {}
    if not isinstance(found, dict) or not found.keys() >= _PARTS:
        raise PipelineStop(
            f"Version {manifest.get('version')} has no signature in its manifest: it was filed by "
            "an older state of this project. Train a new version."
        )
    return found


def breaks(callers: Signature, new: Signature) -> list[str]:
    """What of `new` would break those who call `callers` now; a sentence for each.

    A column that is new and optional breaks nobody, nor does one that is no longer read.
    """
    return [*_inputs_that_break(callers["inputs"], new["inputs"]), *_outputs(callers, new)]


def _inputs_that_break(callers: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name, column in new.items():
        known = callers.get(name)
        if known is None:
            if column["required"]:
                yield f"column '{name}' is required, and callers do not send it"
        elif known["type"] != column["type"]:
            yield f"column '{name}' is {column['type']}, and callers send {known['type']}"
        elif column["required"] and not known["required"]:
            yield f"column '{name}' is required, and callers may leave it out"


def _outputs(callers: Signature, new: Signature) -> Iterator[str]:
    if callers["problem"] != new["problem"]:
        yield f"predictions are {new['problem']}, and callers read {callers['problem']}"
    elif callers["classes"] != new["classes"]:
        yield f"the classes are {new['classes']}, and callers read {callers['classes']}"
