"""The tests have settings of their own, `tests/taxi`, and hold whatever a fork does to `configs/`.

Before anything of the project is imported, and for the processes that tests start here. Those that
run in a copy of the project have its settings instead: `tests.small.environment_of_a_copy`.
"""

import os
from pathlib import Path

os.environ["PIPELINE_CONFIGS"] = str(Path(__file__).parent / "taxi")
