"""From batches of raw examples to one element per slice: what TFMA's metrics are fed.

TFMA's own extractors unbatch the rows and work out slices and metrics one row at a time, in Python:
74 s of CPU for 30,000 rows and two models, where this takes 5. An element here is a slice's share
of many rows at once, so `components.evaluation.metrics` can work on arrays.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.transforms.window import GlobalWindows
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib

from components.errors import PipelineStop
from components.evaluation.config import LABEL_INDEX
from components.evaluation.thresholds import (
    BASELINE,
    CANDIDATE,
    HEURISTIC,
    LOGGED,
    LOGGED_PREDICTION,
)

_CHUNK_ROWS = 32_768
"""Rows predicted and sliced at a time."""
_BLOCKS = 200
"""For confidence intervals a slice's share comes in so many parts, drawn at random: TFMA puts each
element into one of 20 buckets, and looks at how much the metrics differ without one of them."""

SliceKey = tuple[tuple[str, str | int | float], ...]
Part = tuple[np.ndarray, dict[str, np.ndarray]]
"""Some rows of a slice: labels [N], and by model predictions [N, C]."""


def custom_extractors(
    eval_shared_model: list[tfma.types.EvalSharedModel],
    eval_config: config_pb2.EvalConfig,
    tensor_adapter_config: Any,
) -> list[tfma.extractors.Extractor]:
    """What TFX's Evaluator calls instead of TFMA's default extractors.

    TFMA's filter for small slices counts elements, and ours hold many rows: it is taken over from
    the configuration, and switched off there.
    """
    del tensor_adapter_config
    paths = {model.model_name: model.model_path for model in eval_shared_model}
    named = {name for spec in eval_config.metrics_specs for name in spec.model_names}
    if HEURISTIC in named:
        paths[HEURISTIC] = os.path.join(os.path.dirname(paths[BASELINE]), HEURISTIC)
    min_rows = eval_config.options.min_slice_size.value
    eval_config.options.min_slice_size.value = 1
    slices = [tuple(spec.feature_keys) for spec in eval_config.slicing_specs]
    label = eval_config.model_specs[0].label_key
    predict = _Predict(paths, label, slices, LOGGED in named)
    blocks = _BLOCKS if eval_config.options.compute_confidence_intervals.value else 1
    return [
        tfma.extractors.Extractor(
            stage_name=tfma.extractors.slice_key_extractor.SLICE_KEY_EXTRACTOR_STAGE_NAME,
            ptransform=_ExtractSlices(predict, min_rows, blocks),
        )
    ]


class _ExtractSlices(beam.PTransform):
    """From Arrow record batches to one element per slice and chunk of rows."""

    def __init__(self, predict: "_Predict", min_rows: int, blocks: int) -> None:
        super().__init__()
        self._predict = predict
        self._min_rows = min_rows
        self._blocks = blocks

    def expand(self, extracts: beam.PCollection) -> beam.PCollection:
        return (
            extracts
            | "Predict" >> beam.ParDo(self._predict)
            | "BySlice" >> beam.GroupByKey()
            | "DropSmall" >> beam.FlatMap(large_slice, self._min_rows, self._blocks)
        )


def large_slice(
    grouped: tuple[SliceKey, Iterable[Part]], min_rows: int, blocks: int = 1
) -> Iterator[Any]:
    """Yields TFMA's extracts for each part of a slice, if all together have enough rows.

    Args:
        grouped: The slice, and its rows in chunks.
        min_rows: A slice with fewer is left out; all rows together never are.
        blocks: Into how many random parts of equal size a chunk is cut.
    """
    key, parts = grouped
    if key and sum(len(labels) for labels, _ in parts) < min_rows:
        return
    for labels, predictions in parts:
        order = np.random.default_rng(0).permutation(len(labels))
        for rows in np.array_split(order, min(blocks, len(labels))):
            yield {
                tfma.SLICE_KEY_TYPES_KEY: slicer_lib.slice_keys_to_numpy_array([key]),
                tfma.LABELS_KEY: labels[rows],
                tfma.PREDICTIONS_KEY: {name: made[rows] for name, made in predictions.items()},
            }


class Served:
    """A SavedModel in a session, as TF Serving runs it: warm in 0.7 s, not in 1.2 s."""

    def __init__(self, path: str) -> None:
        """Loads the SavedModel of a folder."""
        options = tf.compat.v1.ConfigProto()
        options.graph_options.rewrite_options.disable_meta_optimizer = True  # longer than it saves
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=options)
        with self._session.graph.as_default():
            tags = [tf.saved_model.SERVING]
            loaded = tf.compat.v1.saved_model.load(self._session, tags, path)
        self._signatures = loaded.signature_def

    def call(self, signature: str, examples: np.ndarray) -> np.ndarray:
        """The one output of a signature for serialised examples [N]."""
        (given,) = self._signatures[signature].inputs.values()
        (wanted,) = self._signatures[signature].outputs.values()
        return self._session.run(wanted.name, {given.name: examples})


class _Predict(beam.DoFn):
    """Collects batches into chunks, predicts them with every model, and cuts them into slices."""

    def __init__(
        self, paths: dict[str, str], label: str, slices: list[tuple[str, ...]], logged: bool
    ) -> None:
        super().__init__()
        self._logged = logged
        self._paths = paths
        self._label = label
        self._slices = slices

    def setup(self) -> None:
        self._models = {name: Served(path) for name, path in self._paths.items()}

    def start_bundle(self) -> None:
        self._batches: list[pa.RecordBatch] = []

    def process(self, extracts: dict[str, Any]) -> Iterator[tuple[SliceKey, Part]]:
        self._batches.append(extracts[tfma.ARROW_RECORD_BATCH_KEY])
        if sum(batch.num_rows for batch in self._batches) >= _CHUNK_ROWS:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[Any]:
        for element in self._flush():
            yield GlobalWindows.windowed_value(element)

    def _flush(self) -> Iterator[tuple[SliceKey, Part]]:
        batches, self._batches = self._batches, []
        if not batches:
            return
        examples = scalars(batches, tfma.ARROW_INPUT_COLUMN).to_numpy(False)
        served = self._models.items()
        predictions = {name: model.call("serving_default", examples) for name, model in served}
        if self._logged:
            predictions[LOGGED] = logged_predictions(examples)
        labels = self._labels(batches, examples)
        for key, rows in slice_rows(batches, self._slices):
            yield key, (labels[rows], {name: p[rows] for name, p in predictions.items()})

    def _labels(self, batches: list[pa.RecordBatch], examples: np.ndarray) -> np.ndarray:
        if self._label == LABEL_INDEX:
            labels = self._models[CANDIDATE].call(LABEL_INDEX, examples)[:, 0]
            unknown = int((labels < 0).sum())
        else:
            column = scalars(batches, self._label)
            labels, unknown = column.to_numpy(False), column.null_count
        if unknown:
            raise PipelineStop(
                f"{unknown} rows of the test split have no label, or one that is not among the "
                "classes. Fix the data at its source, or add the class to features.label.classes."
            )
        return labels


def logged_predictions(examples: np.ndarray) -> np.ndarray:
    """The predictions float32 [N, C] that serialised examples [N] carry."""
    spec = {LOGGED_PREDICTION: tf.io.RaggedFeature(tf.float32)}
    lists = tf.io.parse_example(tf.constant(examples, tf.string), spec)[LOGGED_PREDICTION]
    return lists.to_tensor().numpy()


def scalars(batches: list[pa.RecordBatch], column: str) -> pa.Array:
    """The first value of each row of a list column over all batches; null where it is empty."""
    parts = []
    for batch in batches:
        lists = batch[column] if column in batch.schema.names else pa.nulls(batch.num_rows)
        filled = pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)
        parts.append(_first(lists) if filled else pa.nulls(batch.num_rows))
    typed = [part.type for part in parts if not pa.types.is_null(part.type)]
    return pa.concat_arrays([part.cast(typed[0]) if typed else part for part in parts])


def _first(lists: pa.ListArray) -> pa.Array:
    """The first element of each list, null for a missing or an empty one."""
    starts, ends = lists.offsets[:-1], lists.offsets[1:]
    filled = pc.and_(pc.less(starts, ends), lists.is_valid())
    return lists.values.take(pc.if_else(filled, starts, None))


def slice_rows(
    batches: list[pa.RecordBatch], slices: list[tuple[str, ...]]
) -> Iterator[tuple[SliceKey, np.ndarray]]:
    """Yields each slice's key and the numbers of its rows; a row without a value is in none."""
    columns = {column for names in slices for column in names}
    coded = {column: scalars(batches, column).dictionary_encode() for column in columns}
    total = sum(batch.num_rows for batch in batches)
    for names in slices:
        codes = np.zeros(total, np.int64)
        present = np.ones(total, bool)
        for name in names:
            present &= coded[name].is_valid().to_numpy(False)
            own = coded[name].indices.fill_null(0).to_numpy(False)
            codes = codes * max(len(coded[name].dictionary), 1) + own
        rows = np.flatnonzero(present)
        order = rows[np.argsort(codes[rows], kind="stable")]
        cuts: np.ndarray = np.flatnonzero(np.diff(codes[order])) + 1
        for part in np.split(order, cuts) if len(order) else ():
            yield tuple((name, _value(coded[name], part[0])) for name in sorted(names)), part


def _value(column: pa.DictionaryArray, row: int) -> str | int | float:
    value = column[int(row)].as_py()
    return value.decode() if isinstance(value, bytes) else value
