"""Feast's two stores behind one feature service (book pattern 26, Feature Store).

Training: each row of `data.path` gets the values that its entity had at the row's time, from the
offline store; none gets one that came later. Serving: a row that has the entity's key gets the
latest values, from the online store. Both are of the types that the feature views declare.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components import files
from components.errors import PipelineStop, did_you_mean
from components.inference import instances
from components.inference.columns import Columns, InvalidRows
from components.inference.instances import Keys
from components.registry.signature import Signature
from pipeline import loading

if TYPE_CHECKING:
    from pipeline.config import Config

_TIME = "event_timestamp"
"""Feast's name for the time of a row."""


class Service:
    """One feature service of a repository."""

    def __init__(self, config: "Config"):
        """Opens the repository that the settings name.

        Raises:
            PipelineStop: If Feast, the repository or the service is not there.
        """
        settings = config.part("feature_store")
        try:
            import prometheus_client  # noqa: F401, I001 (before Feast: it would write files)
            import feast
            from feast.errors import FeastError
            from feast.types import from_feast_to_pyarrow_type
        except ImportError as error:
            raise PipelineStop(
                f"feature_store needs Feast, which is not installed ({error}). It is in the group "
                "feature-store of pyproject.toml."
            ) from error
        self.refusals = (FeastError, LookupError, TypeError, ValueError)
        """What Feast raises for keys that do not suit the entity."""
        workspace = loading.PROJECT / config.workspace
        self.repo = loading.folder_of("feature_store.repo", settings.repo, workspace)
        if not (self.repo / "feature_store.yaml").is_file():
            raise PipelineStop(
                f"feature_store.repo is '{settings.repo}', and {self.repo} has no "
                "feature_store.yaml. Name the folder of a Feast repository."
            )
        try:
            self._store = feast.FeatureStore(repo_path=str(self.repo))
            there = [service.name for service in self._store.list_feature_services()]
        except Exception as error:  # which may come from any of its providers
            raise PipelineStop(
                f"The Feast repository {self.repo} cannot be read: {error}"
            ) from error
        self.name = settings.service
        if self.name not in there:
            raise PipelineStop(
                f"feature_store.service is '{self.name}', which {self.repo} does not have"
                f"{did_you_mean(self.name, there)}. It has: {', '.join(there) or 'none'}. "
                "`feast apply` makes a new one known."
            )
        self._service = self._store.get_feature_service(self.name)
        projections = self._service.feature_view_projections
        fields = [field for projection in projections for field in projection.features]
        self.types = {field.name: from_feast_to_pyarrow_type(field.dtype) for field in fields}
        """The features, by name, and their Arrow types."""
        self.keys = sorted({*self._join_keys(projections)})
        """The columns by which entities are found."""

    def _join_keys(self, projections: Sequence[Any]) -> Iterator[str]:
        for projection in projections:
            registry, project = self._store.registry, self._store.project
            view = registry.get_any_feature_view(projection.name, project)
            sources = getattr(view, "source_feature_view_projections", None)
            if sources is not None:  # computed on demand, from other views
                yield from self._join_keys([*sources.values()])
            elif view.entities != ["__dummy"]:
                yield from (projection.join_key_map.get(key, key) for key in view.join_keys)

    def as_of(self, asked: pd.DataFrame) -> pa.Table:
        """The features that entities had at some time, from the offline store.

        Args:
            asked: The columns `keys` and `event_timestamp`, any number of rows.

        Returns:
            The features, [rows] in the order asked; null where there was no value yet.
        """
        # Feast keeps one row of those that are equal, and drops those before the first value.
        once = asked.drop_duplicates()
        found = self._store.get_historical_features(once, self._service).to_df()
        rows = asked.merge(found, how="left", on=[*self.keys, _TIME])
        return pa.table(
            {
                name: pa.array(rows[name], kind, from_pandas=True)
                for name, kind in self.types.items()
            }
        )

    def latest(self, entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The latest features of entities, from the online store; None where there is no value."""
        found = self._store.get_online_features(self._service, entities).to_dict()
        values = (found[name] for name in self.types)
        return [dict(zip(self.types, row, strict=True)) for row in zip(*values, strict=True)]


def join_files(config: "Config", rows: Path) -> Path:
    """Adds features to the files of rows; a file that would be the same stays as it is.

    Args:
        config: The settings.
        rows: The folder of `data.path`; those of its files that `data.pattern` names are Parquet.

    Returns:
        The folder with a file for each, of the same name.

    Raises:
        PipelineStop: If the repository or the rows cannot be used.
    """
    service, time = Service(config), config.part("feature_store").time
    sources = [*rows.glob(re.sub(r"\{.*?\}", "*", config.data.pattern))]
    if not sources:  # which ingest says in its own words
        return rows
    to = loading.PROJECT / config.workspace / "data" / f"{config.name}.feature_store"
    for source in sources:
        joined, target = _joined(service, source, time), to / source.relative_to(rows)
        if target.is_file() and pq.read_table(target).equals(joined):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.new_file(str(target)) as temporary:
            pq.write_table(joined, temporary)
    for target in to.glob("**/*.parquet"):
        if rows / target.relative_to(to) not in sources:
            target.unlink()
    return to


def _joined(service: Service, source: Path, time: str) -> pa.Table:
    """A file's rows, with their features beside what they have."""
    try:
        table = pq.read_table(source)
    except pa.ArrowInvalid as error:
        raise PipelineStop(f"With feature_store, rows are Parquet: {source}: {error}") from error
    wanted = [*service.keys, time]
    if lacking := sorted({*wanted} - {*table.column_names}):
        raise PipelineStop(
            f"{source} has no column '{lacking[0]}': feature service '{service.name}' finds "
            f"features by {', '.join(service.keys)}, as of feature_store.time, '{time}'."
        )
    if double := sorted({*service.types} & {*table.column_names}):
        raise PipelineStop(
            f"{source} has a column '{double[0]}', and so has feature service '{service.name}'. "
            "Leave it out of one of them."
        )
    asked = table.select(wanted).to_pandas().rename(columns={time: _TIME})
    try:
        asked[_TIME] = pd.to_datetime(asked[_TIME], utc=True).astype("datetime64[ns, UTC]")
        if (empty := int(asked.isna().any(axis=1).sum())) > 0:
            raise ValueError(f"{empty} rows have no {' or no '.join(wanted)}")
        features = service.as_of(asked)
    except Exception as error:  # which may come from any of Feast's offline stores
        raise PipelineStop(f"{source} cannot be joined with features: {error}") from error
    return pa.table({**_columns(table), **_columns(features)})


def _columns(table: pa.Table) -> dict[str, Any]:
    return dict(zip(table.column_names, table.columns, strict=True))


class KeyedRows:
    """Reads V1's rows as `components.inference.instances` does, keys of entities among them.

    A row that has the key of an entity, and lacks some of its features, gets those from the online
    store. What a row has itself is used, null as well.
    """

    def __init__(self, service: Service):
        """Takes the feature service."""
        self._service = service
        self._one_at_a_time = threading.Lock()
        self.count = instances.count

    def read(self, signature: Signature, body: Any) -> tuple[Columns, Keys | None]:
        """Checks a body as parsed from JSON; see `instances.read`.

        Raises:
            InvalidRows: If it cannot be predicted, or the online store does not know an entity.
        """
        if self.count(body):
            body = {**body, "instances": self._completed(body["instances"])}
        return instances.read(signature, body)

    def _completed(self, rows: list[Any]) -> list[Any]:
        keys, names = self._service.keys, self._service.types.keys()
        entities = {
            number: {key: row[key] for key in keys}
            for number, row in enumerate(rows)
            if isinstance(row, dict)
            and not names <= row.keys()
            and all(row.get(key) is not None for key in keys)
        }
        try:
            with self._one_at_a_time:
                found = self._service.latest([*entities.values()]) if entities else []
        except self._service.refusals as error:
            raise InvalidRows([f"the feature store cannot look up these rows: {error}"]) from error
        completed, problems = [*rows], list[str]()
        for (number, entity), features in zip(entities.items(), found, strict=True):
            completed[number] = {**features, **rows[number]}
            if all(value is None for value in features.values()):
                shown = ", ".join(f"{key} {value!r:.80}" for key, value in entity.items())
                problems.append(
                    f"row {number}: the online store has no features of {shown}: materialize them, "
                    f"or send {', '.join(names)}"
                )
        if problems:
            raise InvalidRows(problems)
        return completed
