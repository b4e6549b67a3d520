"""What a run on this machine does before it starts."""

from pathlib import Path

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import local


def test_what_a_killed_run_left_goes_whatever_pipeline_it_was_of(tmp_path: Path) -> None:
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(tmp_path / "metadata.db")
    store = MetadataStore(connection)
    kind = store.put_execution_type(mlmd.ExecutionType(name="Component"))
    state = mlmd.Execution.RUNNING
    first, second = store.put_executions(
        [mlmd.Execution(type_id=kind, last_known_state=state) for _ in range(2)]
    )
    roots = tmp_path / "pipeline_root"
    left = [
        roots / "taxi" / "Trainer" / "model" / str(first),
        roots / "taxi-continued-evaluation" / "Evaluator" / "evaluation" / str(second),
        roots / "taxi-continued-evaluation" / "Evaluator" / ".system" / "work" / str(second),
    ]
    kept = roots / "taxi" / "Trainer" / "model" / "99"
    for folder in (*left, kept):
        folder.mkdir(parents=True)
    local._sweep_after_killed(store, roots)
    assert [folder for folder in left if folder.exists()] == []
    assert kept.exists()
    states = {execution.last_known_state for execution in store.get_executions()}
    assert states == {mlmd.Execution.CANCELED}
