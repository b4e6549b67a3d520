"""What a component finds before it runs, as a part of its cache key."""

import json
from typing import Any

from tfx.dsl.components.base import base_driver
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2


class FindingDriver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Looks at the world before the cache is consulted."""

    def find(self, info: data_types.ExecutionInfo) -> dict[str, Any]:
        """What is there, as JSON's values.

        Args:
            info: The execution's inputs and properties.
        """
        raise NotImplementedError

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Sets the execution property `found`, as JSON."""
        output = driver_output_pb2.DriverOutput()
        found = json.dumps(self.find(execution_info), sort_keys=True)
        output.exec_properties["found"].string_value = found
        return output
