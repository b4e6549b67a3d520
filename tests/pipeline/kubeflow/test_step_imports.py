"""What a step imports, and above all what it does not."""

import json
import subprocess
import sys

from pipeline import loading

PREPARED = """
import sys
from pipeline.kubeflow import tfx_internals
tfx_internals.import_no_more_than_needed()
import tfx.components.trainer.executor
import tfx.orchestration.kubeflow.v2.container.kubeflow_v2_entrypoint_utils
"""


def names(code: str) -> set[str]:
    """Runs code in a process of its own, after a step's imports; the names that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARED + code],
        cwd=loading.PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_a_step_imports_neither_kfps_client_nor_the_metrics_of_tfma():
    found = names("import json; print(json.dumps([*sys.modules]))")
    assert {"kfp.pipeline_spec.pipeline_spec_pb2", "tensorflow_model_analysis.sdk"} <= found
    assert not {"kfp.client", "kubernetes", "tensorflow_model_analysis.metrics", "nltk"} & found


def test_a_step_can_have_the_client_that_submits():
    found = names("""
import json
from pipeline.kubeflow.submit import client
print(json.dumps([client.Client.__mro__[1].__module__]))
""")
    assert found == {"kfp.client.client"}


def test_who_asks_for_them_gets_them():
    found = names("""
import json
import kfp
import tensorflow_model_analysis as tfma
from kfp import dsl
print(json.dumps([tfma.default_eval_shared_model.__name__, dsl.pipeline.__name__,
                  type(kfp.__version__).__name__]))
""")
    assert found == {"default_eval_shared_model", "pipeline", "str"}
