"""A feature store, Feast: training rows get their features as of their time, requests by key."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.feature_store.store import KeyedRows
    from pipeline.config import Config


def settings() -> dict[str, Any]:
    """`feature_store`: the repository and the service in it; off if null."""
    from pydantic import Field

    from components.feature_store.settings import FeatureStore

    text = "Take features from a Feast repository; off if null."
    return {"feature_store": (FeatureStore | None, Field(None, description=text))}


def joined_data(config: "Config", rows: Path) -> Path:
    """The folder of the rows with their features; that of the rows itself if there is no store."""
    if config.part("feature_store") is None:
        return rows
    from components.feature_store import store

    return store.join_files(config, rows)


def row_reader(config: "Config") -> "KeyedRows | None":
    """What reads requests whose rows may be entity keys alone; None if there is no store."""
    if config.part("feature_store") is None:
        return None
    from components.feature_store import store

    return store.KeyedRows(store.Service(config))
