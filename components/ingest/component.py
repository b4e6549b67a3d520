"""ArrowExampleGen: the component that turns CSV and Parquet files into examples."""

import dataclasses
import json
from typing import Any

from google.protobuf import wrappers_pb2
from tfx.components.example_gen import component, driver, utils
from tfx.dsl.components.base import executor_spec
from tfx.orchestration import data_types
from tfx.proto import example_gen_pb2

from components.errors import PipelineStop
from components.ingest.executor import INPUTS_KEY, Executor, read_inputs
from components.ingest.settings import IngestSettings


class Driver(driver.FileBasedDriver):
    """Finds the files of all spans wanted; TFX's own driver reads one span."""

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Adds files, span, version and fingerprint, so that TFX's cache key holds them.

        Raises:
            PipelineStop: If the folder, the files or a span aren't there.
        """
        inputs = read_inputs(exec_properties)
        exec_properties[INPUTS_KEY] = json.dumps(dataclasses.asdict(inputs), sort_keys=True)
        exec_properties[utils.SPAN_PROPERTY_NAME] = inputs.spans[-1]
        exec_properties[utils.VERSION_PROPERTY_NAME] = inputs.version
        exec_properties[utils.FINGERPRINT_PROPERTY_NAME] = inputs.fingerprint
        return exec_properties


class ArrowExampleGen(component.FileBasedExampleGen):
    """Reads CSV and Parquet files through Arrow and writes split, gzipped TFRecords of tf.Examples.

    Output `examples`: a standard Examples artifact with the splits train, eval and test, the rows
    of each in `counts.json` and in its custom properties `rows_train`, `rows_eval`, `rows_test`,
    and all spans read in `spans` (JSON); `span` is the newest of them.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, input_base: str, pattern: str, settings: IngestSettings) -> None:
        """Builds the component.

        Args:
            input_base: The folder of the files.
            pattern: A glob below it, with {SPAN}, {VERSION}, or {YYYY}, {MM} and {DD} as in TFX.
            settings: All else. All of it is part of the cache key.

        Raises:
            PipelineStop: If the settings contradict each other.
        """
        problems = [f"{'.'.join(path)} {message}" for path, message in settings.problems()]
        if problems:
            raise PipelineStop(f"The ingest settings are wrong: {'; '.join(problems)}.")
        custom = example_gen_pb2.CustomConfig()
        custom.custom_config.Pack(wrappers_pb2.StringValue(value=settings.to_json()))
        super().__init__(
            input_base=input_base,
            input_config=utils.make_default_input_config(pattern),
            output_config=example_gen_pb2.Output(),
            custom_config=custom,
        )
