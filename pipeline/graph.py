"""The pipeline's graph, defined once, from configuration, for every runtime.

ExampleGen -> StatisticsGen -> CuratedSchema -> ExampleValidator -> Gate
-> Transform -> Trainer -> BaselineLookup -> Evaluator -> RegistryPush
"""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import tensorflow_data_validation as tfdv
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.components.transform.component import Transform
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2, transform_pb2

from components.errors import PipelineStop
from components.evaluation.evaluator import SlicedEvaluator
from components.evaluation.thresholds import Judgement
from components.features.schema import CuratedSchema
from components.features.table import FeatureTable, Image, Prediction
from components.gate import Gate, GateSettings
from components.hashing import hash_files, hash_tree
from components.inference.model import choose
from components.ingest.component import ArrowExampleGen
from components.ingest.settings import IngestSettings, NamedTable, Query
from components.registry import signature, store
from components.registry.lookup import BaselineLookup
from components.registry.push import RegistryPush
from components.registry.signature import column_types
from components.trainer.run import version_to_start_from
from pipeline import parts
from pipeline.config import Config
from pipeline.fingerprint import code_fingerprint
from pipeline.loading import PROJECT, data_folder, folder_of
from pipeline.page.step import RunPage
from pipeline.schema import read_schema
from pipeline.workspace import Workspace

_TRAINER = "components.trainer.run"
"""The module that trains in this process; parts have others, by strategy."""

UNCACHED = frozenset({"RegistryPush"})
"""Nodes that look at the world each time: they always run."""


def create_pipeline(config: Config, workspace: Workspace) -> Pipeline:
    """Wires the components.

    Raises:
      PipelineStop: the schema file is missing or unreadable.
    """
    ingest = example_gen(config)
    examples = ingest.outputs["examples"]
    statistics_gen = statistics_of(examples)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = curated_schema(config)
    schema = schema_gen.outputs["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    gate = _gate(config, statistics, validator.outputs["anomalies"])
    transform = _transform(config, workspace, examples, schema)
    transform.add_upstream_node(gate)
    tuner = _tuner(config, workspace, transform, schema)
    trainer = _trainer(config, workspace, transform, schema, tuner)
    model = trainer.outputs["model"]
    lookup = _lookup(config, workspace, model, examples, schema)
    baseline = lookup.outputs["baseline"]
    judgement = Judgement(**config.evaluation.model_dump(exclude={"heuristic"}), intervals=True)
    evaluator = evaluator_of(config, examples, model, baseline, schema, judgement)
    push = RegistryPush(
        model=model,
        blessing=evaluator.outputs["blessing"],
        evaluation=evaluator.outputs["evaluation"],
        baseline=baseline,
        examples=examples,
        statistics=statistics,
        schema=schema,
        transform_graph=transform.outputs["transform_graph"],
        **_provenance(config, workspace),
    )
    components = [ingest, statistics_gen, schema_gen, validator, gate, transform]
    components += [tuner] if tuner else []
    components += [trainer, lookup, evaluator, push]
    if not workspace.is_here:  # here the runner writes the page, that of a run that failed too
        components.append(_page(components, config, workspace))
    return pipeline_of(config.name, components, config, workspace)


def pipeline_of(name: str, components: list[Any], config: Config, workspace: Workspace) -> Pipeline:
    """The pipeline of some components, each with the flags of its runner."""
    for component in components:
        if isinstance(component, BaseBeamComponent):
            component.with_beam_pipeline_args(config.beam.flags(component.id))
    return Pipeline(
        pipeline_name=name,
        pipeline_root=str(workspace.pipeline_root / name),
        # It makes the folder; on a cluster the cluster's own store is used.
        metadata_connection_config=sqlite_metadata_connection_config(str(workspace.metadata))
        if workspace.is_here
        else None,
        components=components,
        enable_cache=True,
    )


def example_gen(config: Config, fresh: bool = False) -> ArrowExampleGen:
    """The ingest step.

    Args:
      config: the settings.
      fresh: all rows are for an evaluation: they are not divided, and none is left out.
    """
    data, table = config.data, config.features
    types = column_types(read_schema(PROJECT / config.schema_file))
    settings = IngestSettings(
        columns=types,
        label=table.label.column,
        required=[table.key] if table.key else [],
        split=None if fresh else data.split,
        test_spans=data.test_spans,
        sample=1.0 if fresh else data.sample,
        spans=data.spans,
        csv=data.csv,
        query=query_of(config),
        bad_rows=data.bad_rows,
        code=code_fingerprint("components.ingest.component"),
    )
    component = ArrowExampleGen(str(data_folder(config)), data.pattern, settings)
    return component.with_id("ExampleGen")


def query_of(config: Config) -> Query | None:
    """The query of `data.sql`, with the files of its tables.

    Raises:
      PipelineStop: a table has no files.
    """
    data = config.data
    if data.sql is None:
        return None
    tables = {}
    for name, table in data.tables.items():
        path = folder_of(f"data.tables.{name}.path", table.path, PROJECT / config.workspace)
        files = sorted(path.glob(table.pattern)) if path.is_dir() else [path]
        found = [str(file) for file in files if file.is_file()]
        if not found:
            raise PipelineStop(f"data.tables.{name} has no file at {path}. Correct its path.")
        tables[name] = NamedTable(files=found, columns=table.columns)
    return Query(sql=data.sql, over=data.sql_over, columns=data.columns, tables=tables)


def statistics_of(examples: Any, columns: list[str] | None = None) -> StatisticsGen:
    """TFDV's statistics, of some columns or of all.

    With its ten buckets, which one outlier makes wide, the divergence of two spans of the same
    heavy-tailed column came to 0.8; with a hundred it is below 0.2.
    """
    return StatisticsGen(
        examples=examples,
        stats_options=tfdv.StatsOptions(num_histogram_buckets=100, feature_allowlist=columns),
    )


def curated_schema(config: Config) -> Any:
    """The schema file as an artifact."""
    content = (PROJECT / config.schema_file).read_bytes()
    return CuratedSchema(file=config.schema_file, fingerprint=hashlib.sha256(content).hexdigest())


def _pinned(config: Config, workspace: Workspace) -> FeatureTable:
    """The feature table with what its features refer to outside of it, and digests of that.

    Raises:
      PipelineStop: there is no such version or file, or it reads other columns.
    """
    columns: dict[str, Any] = dict(config.features.columns)
    for name, feature in columns.items():
        setting = f"features.columns.{name}"
        if isinstance(feature, Prediction):
            chosen = choose(str(workspace.registry / feature.model), feature.version)
            manifest = store.read_manifest(chosen.folder, chosen.version)
            inputs = [*signature.of(manifest)["inputs"]]
            if sorted(feature.columns) != sorted(inputs):
                raise PipelineStop(
                    f"{setting}.columns must be the columns that version {chosen.version} of "
                    f"'{feature.model}' reads: {', '.join(inputs)}."
                )
            pinned: dict[str, Any] = {"folder": store.version_folder(chosen.folder, chosen.version)}
            pinned |= {"version": chosen.version, "digest": manifest["fingerprint"]}
            columns[name] = feature.model_copy(update=pinned)
        elif isinstance(feature, Image) and feature.pretrained is not None:
            file = _pretrained(f"{setting}.pretrained.file", feature.pretrained.file, workspace)
            digest = hash_tree(str(file)) if file.is_dir() else hash_files([str(file)])
            pretrained = feature.pretrained.model_copy(update={"file": str(file), "digest": digest})
            columns[name] = feature.model_copy(update={"pretrained": pretrained})
    return config.features.model_copy(update={"columns": columns})


def to_train_before(config: Config, workspace: Workspace) -> list[str]:
    """The configurations of models that features ask and that are not there yet."""
    asked = [f for f in config.features.columns.values() if isinstance(f, Prediction)]
    return [
        f.trained_by
        for f in asked
        if f.trained_by and not store.read_labels(str(workspace.registry / f.model))
    ]


def _pretrained(setting: str, file: str, workspace: Workspace) -> Path:
    folder, _, name = file.rpartition("/")
    found = folder_of(setting, folder or ".", workspace.root) / name
    if not found.exists():
        raise PipelineStop(f"{setting} is '{file}', and there is no {found}. Correct the path.")
    return found


def _transform(config: Config, workspace: Workspace, examples: Any, schema: Any) -> Transform:
    """Only what shapes the transformed values goes in: a new embedding is no new Transform."""
    of_the_model = {"columns": {"__all__": {"embed"}}, "crosses": {"__all__": {"embed"}}}
    left_out: dict[str, Any] = {"slices": True, "exclude": True, "key": True, **of_the_model}
    table = _pinned(config, workspace).model_dump(mode="json", exclude=left_out)
    return Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn="components.features.transform.preprocessing_fn",
        splits_config=transform_pb2.SplitsConfig(analyze=["train"], transform=["train", "eval"]),
        custom_config={"table": table, "code": code_fingerprint("components.features.transform")},
        disable_analyzer_cache=True,
        disable_statistics=True,
    )


def _tuner(config: Config, workspace: Workspace, transform: Transform, schema: Any) -> Any:
    """The component that searches for the Trainer's settings; None if no part has one."""

    def arguments(module: str) -> dict[str, Any]:
        return _training_arguments(config, workspace, transform, schema, module)

    tuners = (tuner(config, arguments) for tuner in parts.offers("tuner"))
    return next((made for made in tuners if made), None)


def _trainer(
    config: Config, workspace: Workspace, transform: Transform, schema: Any, tuner: Any
) -> Trainer:
    module = parts.trainers().get(config.training.strategy, _TRAINER)
    arguments = _training_arguments(config, workspace, transform, schema, module)
    arguments["custom_config"] |= {
        "pipeline": config.name,
        "checkpoints": str(workspace.checkpoints),
        "warm_start": _warm_start(config, workspace),
        # Packages of an environment of its own, which the code's fingerprint does not see.
        "environment": hash_files([str(_folder(module) / "environment" / "*.lock")]),
    }
    return Trainer(
        run_fn=f"{module}.run_fn",
        hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
        **arguments,
    )


def _folder(module: str) -> Path:
    return PROJECT.joinpath(*module.split(".")).parent


def _warm_start(config: Config, workspace: Workspace) -> dict[str, Any] | None:
    """The version to start from. Looked up here if that can be, so that the cache knows it."""
    folder = str(workspace.registry / config.registry.model)
    wanted = config.training.warm_start.version if config.training.warm_start else None
    if not workspace.is_here:  # then a run may name another version
        return {"folder": folder, "version": wanted}
    number = None if wanted is None else version_to_start_from(folder, wanted)
    return None if number is None else {"folder": folder, "version": number}


def _training_arguments(
    config: Config, workspace: Workspace, transform: Transform, schema: Any, module: str
) -> dict[str, Any]:
    """What a component that trains is told."""
    table = _pinned(config, workspace)
    return {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "schema": schema,
        "train_args": trainer_pb2.TrainArgs(splits=["train"]),
        "eval_args": trainer_pb2.EvalArgs(splits=["eval"]),
        "custom_config": {
            "table": table.model_dump(mode="json", exclude={"slices", "exclude"}),
            "settings": config.model_dump(mode="json", include={"model", "training"}),
            "code": code_fingerprint(module),
        },
    }


def _gate(config: Config, statistics: Any, anomalies: Any) -> Any:
    table = config.features
    kind = column_types(read_schema(PROJECT / config.schema_file))[table.label.column]
    settings = GateSettings(
        stop_on=config.gate.stop_on,
        tolerate=config.gate.tolerate,
        required=table.required_columns(),
        label=table.label.column,
        classes=table.label.values(kind) or [0, 1]
        if table.problem in ("binary", "multiclass")
        else None,
        bridged=[column for column, why in table.exclude.items() if why == "bridged"],
        schema_file=config.schema_file,
    )
    return Gate(
        statistics=statistics,
        anomalies=anomalies,
        settings=settings.model_dump_json(),
        code=code_fingerprint("components.gate"),
    )


def _lookup(config: Config, workspace: Workspace, model: Any, examples: Any, schema: Any) -> Any:
    return BaselineLookup(
        model=model,
        examples=examples,
        schema=schema,
        registry=str(workspace.registry),
        model_name=config.registry.model,
        heuristic=config.evaluation.heuristic,
        features=config.features.model_dump_json(exclude={"slices"}),
        code=code_fingerprint("components.registry.lookup"),
    )


def evaluator_of(
    config: Config, examples: Any, model: Any, baseline: Any, schema: Any, judgement: Judgement
) -> SlicedEvaluator:
    """The Evaluator of a model beside a baseline."""
    return SlicedEvaluator(
        examples=examples,
        model=model,
        baseline=baseline,
        schema=schema,
        features=config.features.model_dump_json(),
        judgement=judgement.model_dump_json(),
        code=code_fingerprint("components.evaluation.evaluator"),
    ).with_id("Evaluator")


def _page(components: list[Any], config: Config, workspace: Workspace) -> Any:
    outputs = {name: channel for one in components for name, channel in one.outputs.items()}
    inputs = (
        "examples",
        "statistics",
        "report",
        "transform_graph",
        "model",
        "evaluation",
        "pushed",
    )
    known = _provenance(config, workspace)
    settings = ("registry", "config", "config_hash", "code", "git_commit")
    return RunPage(
        **{name: outputs[name] for name in inputs},
        **{name: known[name] for name in settings},
        run_id="",
    )


def _provenance(config: Config, workspace: Workspace) -> dict[str, str]:
    """What the registry records beside the artifacts."""
    settings = config.model_dump_json()
    return {
        "registry": str(workspace.registry),
        "model_name": config.registry.model,
        "promote": config.registry.promote,
        "config": settings,
        "config_hash": hashlib.sha256(settings.encode()).hexdigest(),
        "code": code_fingerprint("pipeline.graph"),
        "git_commit": _git_commit(),
        "run_id": "",
    }


def _git_commit() -> str:
    """The commit of the working tree, with "+" if it has changes; "" outside of git.

    The image has no git: it is built from a tree without a history.
    """
    if shutil.which("git") is None:
        return ""
    git = ["git", "-C", str(PROJECT)]
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if commit.returncode:
        return ""
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=False)
    return commit.stdout.strip() + ("+" if changes.stdout else "")
