"""A configuration of the small data that uses no pattern which can be switched off."""

import copy
from pathlib import Path
from typing import Any

import yaml

from pipeline import loading
from pipeline.config import Config
from tests import small


def settings() -> dict[str, Any]:
    """The small settings without hashes, embeddings, crosses and slices, on one device."""
    plain = copy.deepcopy(small.SETTINGS)
    table = plain["features"]
    for removable in ("crosses", "slices"):
        del table[removable]
    del table["columns"]["shop"]
    plain["training"]["strategy"] = "one_device"
    return plain


def config(folder: Path, snippet: str = "name: small") -> Config:
    """The plain configuration, changed by a piece of YAML."""
    small.write_config(folder, settings(), "plain")
    small.write_config(folder, {"extends": "plain", **yaml.safe_load(snippet)}, "variant")
    return loading.load("variant", (), folder)
