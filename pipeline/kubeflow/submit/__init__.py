"""Submits a compiled package to Kubeflow Pipelines, and follows the run (`make submit`)."""

from pipeline.kubeflow.submit.request import Submission
from pipeline.kubeflow.submit.submission import submit

__all__ = ["Submission", "submit"]
