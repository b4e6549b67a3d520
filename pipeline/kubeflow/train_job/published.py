"""Manifests against the models that Kubeflow Trainer publishes (kubeflow-trainer-api)."""

from pipeline.kubeflow.package import Document


def check(manifest: Document) -> None:
    """Checks a TrainJob or a TrainingRuntime.

    Raises:
      ValueError: it has a field that the API lacks, or a value of another type.
    """
    from kubeflow_trainer_api import models

    kinds = {
        "TrainJob": models.TrainerV1alpha1TrainJob,
        "TrainingRuntime": models.TrainerV1alpha1TrainingRuntime,
    }
    understood = kinds[manifest["kind"]].from_dict(manifest).to_dict()
    if understood != manifest:  # from_dict leaves out what it does not know
        raise ValueError(f"Kubeflow Trainer understands only a part: {understood} of {manifest}")
