"""What the training core is told about its inputs: a JSON feature spec.

Made from the feature table and what Transform has learned (vocabulary sizes), so that the core
needs neither. Book patterns: Transform, Embeddings, Feature Cross.
"""

from typing import Any

import tensorflow_transform as tft

from components.features.table import (
    DATE_PARTS,
    Bucketized,
    Date,
    FeatureTable,
    Hashed,
    Image,
    Numeric,
    Prediction,
    Text,
    Vocabulary,
)
from components.features.transform import LABEL


def model_inputs(table: FeatureTable, transformed: tft.TFTransformOutput) -> dict[str, Any]:
    """Describes the transformed examples.

    Returns:
      `{"problem", "label", "num_classes", "features": [{"name", "size", "embed", ...}]}`; `name` is
      the feature's safe one, `size` the number of ids, or None for numbers. There may be `bins`:
      the number is a position among so many, -1 if it is missing; `tokens`: so many ids; `pixels`:
      so many numbers, [height, width, channels], with the `filters` of the convolutions over them.
    """
    features: list[dict[str, Any]] = []
    safe = table.safe_names()
    for name, feature in table.columns.items():
        if isinstance(feature, Numeric | Prediction):
            bins = {"bins": feature.bins} if feature.scale == "quantile" else {}
            features.append({"name": safe[name], "size": None, **bins})
        elif isinstance(feature, Image):
            shape = [*feature.size, feature.channels]
            image: dict[str, Any] = {"pixels": shape, "filters": feature.filters}
            if feature.pretrained is not None:
                image["pretrained"] = feature.pretrained.model_dump(mode="json")
            features.append({"name": safe[name], "size": None, **image})
        elif isinstance(feature, Text):
            words = feature.buckets or transformed.vocabulary_size_by_name(safe[name]) + 1
            text = {"size": int(words) + 1, "embed": feature.embed, "tokens": feature.tokens}
            features.append({"name": safe[name], **text})
        else:
            size = _num_ids(safe[name], feature, transformed) + (feature.missing == "own")
            features.append({"name": safe[name], "size": size, "embed": feature.embed})
    for name, cross in table.crosses.items():
        features.append({"name": safe[name], "size": cross.buckets, "embed": cross.embed})
    return {
        "problem": table.problem,
        "label": LABEL,
        "num_classes": table.num_classes(),
        "features": features,
    }


def _num_ids(
    name: str, feature: Bucketized | Vocabulary | Hashed | Date, transformed: tft.TFTransformOutput
) -> int:
    if isinstance(feature, Vocabulary):
        size = transformed.vocabulary_size_by_name(name)
        return int(size) + feature.oov_buckets
    if isinstance(feature, Date):
        return DATE_PARTS[feature.part]
    if isinstance(feature, Hashed) or feature.boundaries is None:
        return int(feature.buckets or 0)
    return len(feature.boundaries) + 1
