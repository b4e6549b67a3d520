"""Tasks that are left out of a run in which there is nothing for them to do."""

from pipeline.kubeflow.package import Document


def only_where(document: Document, producer: str, key: str) -> None:
    """Lets those that read a task's outputs run only where it set a property of them to 1.

    What is behind them is left out with them, and the run succeeds.

    Args:
      document: the pipeline spec, which is changed.
      producer: the task.
      key: an integer custom property, which it sets on each of its outputs.
    """
    # Its first value: a condition on what the producer did not write fails the driver.
    for output in document["components"][f"comp-{producer}"]["outputDefinitions"][
        "artifacts"
    ].values():
        output["metadata"] = {key: 0}
    for task in document["root"]["dag"]["tasks"].values():
        for name, given in task["inputs"].get("artifacts", {}).items():
            if given["taskOutputArtifact"]["producerTask"] == producer:
                read = f"inputs.artifacts['{name}'].artifacts[0].metadata['{key}']"
                task["triggerPolicy"] = {"condition": f"{read} == 1"}
